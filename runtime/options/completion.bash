# Completes the trainers' command lines in bash. Written by --install-completion, which writes it anew.
_trainers() {
    local i script line
    COMPREPLY=()
    for ((i = 0; i < COMP_CWORD; i++)); do
        script=${COMP_WORDS[i]/#\~/$HOME}
        # another project's train_x.py is not started: it would begin to train
        [[ $script == *train_*.py && -f $(dirname -- "$script")/runtime/options/completion.py ]] || continue
        while IFS= read -r line; do
            COMPREPLY+=("${line%%$'\t'*}")
        done < <(TRAINERS_COMPLETE=1 @PYTHON@ "$script" "${COMP_WORDS[@]:i+1:COMP_CWORD-i}" 2>/dev/null </dev/null)
        return
    done
}
complete -o default -F _trainers python python3 torchrun dist_train.sh
