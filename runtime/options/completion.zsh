# Completes the trainers' command lines in zsh. Written by --install-completion, which writes it anew.
_trainers() {
    local i script line
    local -a found
    for ((i = 1; i < CURRENT; i++)); do
        script=${words[i]/#\~/$HOME}
        # another project's train_x.py is not started: it would begin to train
        [[ $script == *train_*.py && -f ${script:h}/runtime/options/completion.py ]] || continue
        for line in "${(@f)$(TRAINERS_COMPLETE=1 @PYTHON@ $script "${(@)words[i+1,CURRENT]}" 2>/dev/null </dev/null)}"; do
            [[ -n $line ]] && found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        done
        (( $#found )) && _describe option found || _files
        return
    done
    if [[ $service == python* ]] && autoload -Uz +X _python 2>/dev/null; then
        _python "$@"
    else
        _files
    fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u }
compdef _trainers python python3 torchrun dist_train.sh
