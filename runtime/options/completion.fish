# Completes the trainers' command lines in fish. Written by --install-completion, which writes it anew.
function __trainers_candidates
    set -l tokens (commandline -opc)
    set -l current (commandline -ct)
    if string match -q -- '*dist_train.sh' $tokens[1]; and not string match -q -- '*.py' "$tokens[2]$current"
        # CONFIG GPUS, MMDetection's form
        set tokens[1] (string replace -r 'dist_train\.sh$' train_queryinst.py -- $tokens[1])
    end
    for i in (seq (count $tokens))
        set -l script (string replace -r '^~' $HOME -- $tokens[$i])
        # another project's train_x.py is not started: it would begin to train
        if string match -q -- '*train_*.py' $script; and test -f (dirname $script)/runtime/options/completion.py
            set -l before
            if test $i -lt (count $tokens)
                set before $tokens[(math $i + 1)..-1]
            end
            env TRAINERS_COMPLETE=1 @PYTHON@ $script $before "$current" 2>/dev/null </dev/null
            return
        end
    end
end
for name in python python3 torchrun dist_train.sh
    complete -c $name -a '(__trainers_candidates)'
end
