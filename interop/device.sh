#!/bin/sh
# The least that a device needs: asks a broker for the newest statement of a channel, verifies it from the anchor on,
# and prints its signed part.
#
#     device.sh HOST:PORT CA_FILE CHANNEL 'NAMESPACE sha256:HEX'
#
# Exit code 0: what is on standard output is verified. 1: nothing is there, and a line on standard error says why.
# It needs a POSIX shell, awk, OpenSSL 3, and grep, sed and coreutils of GNU.
#
# What it leaves out: it keeps nothing, so it cannot tell an old log from a new one (5.1). It does not look below the
# newest statement (5.3). It does not refuse points of small order (2.6-2) or broken UTF-8 (3.1-1). Fields that it does
# not use itself are for those to judge who act on them. Numbers in parentheses are those of the specification.
set -fu
export LC_ALL=C # lengths and ranges are of octets
fail() { printf 'device.sh: %s\n' "$*" >&2; exit 1; }

# The forms of lines (appendix A). The last characters of keys and signatures have no loose bits (2.6-1).
part='[a-z0-9][a-z0-9+_-]*' name="$part(\\.$part)+" serial='[1-9][0-9]{0,9}' digest='sha256:[0-9a-f]{64}'
word='[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}' key='ed25519:[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]'
time='(19[7-9]|[2-9][0-9]{2})[0-9](-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z' kinds='(release|withdraw|trust|beat)'
used='Tidings|Channel|Serial|Previous|Time|Trust|Critical|Expires|Key|Role|Checkpoint|Head|Signature'
more='Version|Summary|Details|Urgency|Target|Barrier|Not-Before|Deadline|Rollout|Slot|Apply|Payload|Withdraws|Reason|Fallback'
forms="Tidings: 1 $kinds|Channel: $name|(Serial|Trust): $serial|Previous: (-|$digest)|(Time|Expires): $time|($more): .*\
|Critical: ($used|$more)( ($used|$more))*|Key: $key $word|Role: $kinds (\\*|$part(\\.$part)*\\.\\*|$name) $serial( $word)+\
|(Checkpoint|Head): $name $serial $digest|Signature: $key [A-Za-z0-9_-]{85}[AQgw]"
any=$(printf '[A-Za-z][A-Za-z0-9-]{0,63}: [!-~\200-\377]([ -~\200-\377]*[!-~\200-\377])?')
never=$(printf '.{901}|\302[\200-\237]') # too long, or control characters in UTF-8

# talk FILE: send the commands on standard input; the answers come into the file, with LF for CR LF (8.1-2).
talk() {
    sed "s/\$/$cr/" | timeout 30 openssl s_client -quiet -nocommands -tls1_3 -verify_return_error \
        -CAfile "$ca" -connect "$broker" 2>/dev/null | head -c 16777216 >"$dir/raw"
    sed "s/$cr\$//" "$dir/raw" | tr -d '\r\000' >"$dir/$1"
    grep -q '^20[01] ' "$dir/$1" || fail "no broker answers at $broker with a certificate that $ca vouches for"
    sed "s/\$/$cr/" "$dir/$1" | cmp -s - "$dir/raw" || fail 'the answer is cut off, or has a CR, LF or NUL out of place'
}

value() { sed -n "${2-}s/^$1: //p" "$file"; } # NAME [LINE]
octets() { printf %s "$1" | tr '_-' '/+' | base64 -d; }

# look N CHANNEL SERIAL: refuse article N unless it has that statement, well formed (sections 2, 3, 4 and 7).
look() {
    what="statement $3 of $2" file=$dir/$1.statement
    sed '1,/^$/d' "$dir/$1" >"$file"
    sed '/^Signature: /,$d' "$file" >"$dir/$1.signed"
    id=sha256:$(sha256sum <"$dir/$1.signed" | cut -d' ' -f1)
    [ "$(sed '/^$/q' "$dir/$1" | grep -aiE '^(newsgroups|message-id):|^[[:space:]]')" = "$(
        printf 'Newsgroups: %s\nMessage-ID: <%s@%s>' "$2" "$3.${id#*:}" "$2")" ] || fail "the headers of $what do not agree"
    [ "$(wc -c <"$file")" -le 65536 ] && ! grep -aqvxE "$any" "$file" && ! grep -aqE "$never" "$file" &&
        ! grep -avxE "$forms" "$file" | grep -aqiE "^($used|$more): " || fail "$what is too large, or has an odd line"
    kind=$(value Tidings 1) kind=${kind#1 } previous=$(value Previous 4) under=$(value Trust 6)
    case ${2##*.}-$kind-$under in # which kinds stand where (2.2-3); trust alone is under no other trust (3.1-4)
        trust-trust-) under=0 ;; trust-* | *-trust-* | beat-release-* | beat-withdraw-* | [!b]*-beat-*) kind= ;;
    esac
    case $3$previous in 1-) ;; 1sha256:* | *-) previous= ;; esac
    [ "$(head -n 3 "$file")" = "$(printf 'Tidings: 1 %s\nChannel: %s\nSerial: %s' "$kind" "$2" "$3")" ] &&
        [ -n "$previous" ] && [ -n "$(value Time 5)" ] && [ -n "$under" ] || fail "$what does not begin as it has to"
}
