# Completes the trainers' command lines in bash. Written by --install-completion, which writes it anew.
_trainers() {
    local i line script= words=("${COMP_WORDS[@]:0:COMP_CWORD+1}")
    COMPREPLY=()
    if [[ ${words[0]} == *dist_train.sh && ${words[1]} != *.py ]]; then # CONFIG GPUS, MMDetection's form
        words=("${words[0]/%dist_train.sh/train_queryinst.py}" "${words[@]:1}")
    fi
    for ((i = 0; i < ${#words[@]} - 1; i++)); do
        script=${words[i]/#\~/$HOME}
        # another project's train_x.py is not started: it would begin to train
        [[ $script == *train_*.py && -f $(dirname -- "$script")/runtime/options/completion.py ]] || continue
        while IFS= read -r line; do
            COMPREPLY+=("${line%%$'\t'*}")
        done < <(TRAINERS_COMPLETE=1 @PYTHON@ "$script" "${words[@]:i+1}" 2>/dev/null </dev/null)
        return
    done
    [[ -z $_trainers_before ]] || "$_trainers_before" "$@"
}
# what completed python so far goes on with all other lines
if [[ $(complete -p python 2>/dev/null) != *' _trainers '* ]]; then
    _trainers_before=$(complete -p python 2>/dev/null | sed -n 's/.* -F \([^ ]*\) .*/\1/p')
fi
complete -o default -F _trainers python python3 torchrun dist_train.sh
