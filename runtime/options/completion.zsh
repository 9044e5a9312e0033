# Completes the trainers' command lines in zsh. Written by --install-completion, which writes it anew.
_trainers() {
    local i line script
    local -a found line_words
    line_words=("${(@)words[1,CURRENT]}")
    if [[ ${line_words[1]} == *dist_train.sh && ${line_words[2]} != *.py ]]; then # CONFIG GPUS, MMDetection's form
        line_words[1]=${line_words[1]/%dist_train.sh/train_queryinst.py}
    fi
    for ((i = 1; i < $#line_words; i++)); do
        script=${line_words[i]/#\~/$HOME}
        # another project's train_x.py is not started: it would begin to train
        [[ $script == *train_*.py && -f ${script:h}/runtime/options/completion.py ]] || continue
        for line in "${(@f)$(TRAINERS_COMPLETE=1 @PYTHON@ $script "${(@)line_words[i+1,-1]}" 2>/dev/null </dev/null)}"; do
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
