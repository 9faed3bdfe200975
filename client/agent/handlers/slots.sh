# What the handlers of two slots share. `slots.conf` says which slots there are, `loader.conf` which loader.
no() { echo "$1"; exit 2; }
failed() { echo "$1"; exit 1; }
later() { echo "$1"; exit 75; }

[ -r "$T_ETC/slots.conf" ] || no "no $T_ETC/slots.conf: this machine has no two slots"
. "$T_ETC/slots.conf"
. "$T_ETC/loader.conf"
loader() { "$T_LIB/loader" "$@"; }

# running: what this life of the machine was booted from; primary: the default; next: what is booted
# once, or -
look() {
    read -r running primary next <<EOF
$(loader get)
EOF
    case $running in
    A) other=B here=$SLOT_A there=$SLOT_B ;;
    B) other=A here=$SLOT_B there=$SLOT_A ;;
    *) failed "the loader $LOADER does not say which slot runs" ;;
    esac
    noted=
    [ ! -e slot ] || read -r noted < slot
}

size=${T_X_RESULT_SIZE:-$T_SIZE}
result=${T_RESULT:-$T_DIGEST}
# is FILE OCTETS DIGEST
is() { [ "$(head -c "$2" "$1" | sha256sum)" = "$3  -" ]; }
room() {
    [ "$size" -le "$(if [ -b "$there" ]; then
        blockdev --getsize64 "$there"
    else
        stat -L -c %s "$there"
    fi)" ] || no "slot $other is smaller than the image, $size octets"
}
base_is() {
    [ -n "${T_BASE:-}" ] && [ -n "${T_X_BASE_SIZE:-}" ] && is "$here" "$T_X_BASE_SIZE" "$T_BASE"
}
# What another program writes into the slot has to be named, and what it is made from if there is
# such a thing.
result_is_named() {
    [ -n "${T_RESULT:-}" ] && [ -n "${T_X_RESULT_SIZE:-}" ] ||
        no "$T_FORMAT needs result= and result-size=, the image in it"
    [ -z "${T_BASE:-}" ] || base_is || no "slot $running is not what it is made for"
}

state() {
    if [ -z "$noted" ]; then
        if [ -e new ] || [ -e base ] || [ -e writing ]; then echo partial; else echo none; fi
    elif [ "$noted" = "$running" ]; then
        if [ "$primary" = "$running" ]; then echo kept; else echo running; fi
    elif ! is "$there" "$size" "$result"; then echo partial
    elif [ "$next" = "$noted" ]; then echo armed
    else echo staged
    fi
}

# Before anything is written to the slot that does not run. What boots by default is what runs, or
# nothing is written.
begin() {
    [ "$primary" = "$running" ] || later "slot $running is on trial: slot $other is the way back"
    [ "$next" = - ] || loader next -
    : > writing
}

# After it: what lies in the slot is the result.
finish() {
    is "$there" "$size" "$result" || no "what came out is not sha256:$result"
    echo "$other" > slot.new
    sync slot.new
    mv slot.new slot
    sync .
    rm -f writing new base
}

# write FILE: the image into the slot that does not run.
write() {
    begin
    dd if="$1" of="$there" bs=1M conv=notrunc,fsync 2> /dev/null ||
        failed "cannot write slot $other, $there"
    finish
}

arm() {
    [ "$noted" = "$other" ] || failed "nothing is staged"
    is "$there" "$size" "$result" || failed "slot $other has changed"
    loader next "$other"
    # Where `slots.conf` says how a slot's kernel is loaded, the way `kexec` can be gone; without it
    # there is a stronger one.
    if command -v kexec_load > /dev/null; then kexec_load "$other" || kexec -u || :; fi
}

keep() {
    [ "$noted" = "$running" ] || failed "slot $running runs, not what was staged"
    loader primary "$running"
}

drop() {
    if command -v kexec_load > /dev/null; then kexec -u || :; fi
    [ "$next" = - ] || loader next -
    [ "$noted" = "$running" ] || rm -f slot
    rm -f writing new base
    sync .
}
