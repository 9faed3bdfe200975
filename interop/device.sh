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
# newest statement (5.3). It takes broken UTF-8 (3.1-1), and signatures with an R of small order, which only the holder
# of a key can make (2.6-2). Fields that it does not use itself are for those to judge who act on them. Numbers in
# parentheses are those of the specification.
set -fu; export LC_ALL=C # lengths and ranges are of octets
fail() { printf 'device.sh: %s\n' "$*" >&2; exit 1; }

# The forms of lines (appendix A). The last characters of keys and signatures have no loose bits (2.6-1).
part='[a-z0-9][a-z0-9+_-]*' name="$part(\\.$part)+" serial='[1-9][0-9]{0,9}' digest='sha256:[0-9a-f]{64}'
word='[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}' key='ed25519:[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]'
time='(19[7-9]|[2-9][0-9]{2})[0-9](-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z' kinds='(release|withdraw|trust|beat)'
used='Tidings|Channel|Serial|Previous|Time|Trust|Critical|Expires|Key|Role|Checkpoint|Head|Signature'
rest='Version|Summary|Details|Urgency|Target|Barrier|Not-Before|Deadline|Rollout|Slot|Apply|Payload|Withdraws|Reason|Fallback'
forms="Tidings: 1 $kinds|Channel: $name|(Serial|Trust): $serial|Previous: (-|$digest)|(Time|Expires): $time|($rest): .*\
|Critical: ($used|$rest)( ($used|$rest))*|Key: $key $word|(Checkpoint|Head): $name $serial $digest\
|Role: $kinds (\\*|$part(\\.$part)*\\.\\*|$name) $serial( $word)+|Signature: $key [A-Za-z0-9_-]{85}[AQgw]"
# Keys that are none: points of small order, four of them known by their first digits, and what is not below the prime
# (2.6-2).
weak='^Key: ed25519:(A[AQ]A{39}[AI]A|[789_-][Pfv_]_{39}[3_]8|JuiVj8KyJ7BFw_SJ8u-Y.{23}|xxdqcD1N2E-6PAt2DRBn.{23}) '
# The form of any line, and what no line has: too many octets, control characters in UTF-8, a weak key.
any=$(printf '[A-Za-z][A-Za-z0-9-]{0,63}: [!-~\200-\377]( *[!-~\200-\377])*') never=$(printf ".{901}|\302[\200-\237]|$weak")

# talk FILE: send the commands on standard input; the answers come into the file, with LF for CR LF (8.1-2).
talk() {
    sed "s/\$/$cr/" | timeout 30 openssl s_client -quiet -nocommands -tls1_3 -verify_return_error \
        -CAfile "$ca" -connect "$broker" 2>/dev/null | head -c 16777216 >raw
    sed "s/$cr\$//" raw | tr -d '\r\000' >"$1"
    grep -q '^20[01] ' "$1" || fail "no broker answers at $broker with a certificate that $ca vouches for"
    sed "s/\$/$cr/" "$1" | cmp -s - raw || fail 'the answer is cut off, or has a CR, LF or NUL out of place'
}

value() { sed -n "${2-}s/^$1: //p" "$file"; } # NAME [LINE]

# look N CHANNEL SERIAL: refuse article N unless it has that statement, well formed (sections 2, 3, 4 and 7).
look() {
    what="statement $3 of $2" file=$1.statement before=$id
    sed '1,/^$/d' "$1" | tee "$file" | sed '/^Signature: /,$d' >signed
    id=sha256:$(sha256sum <signed | cut -d' ' -f1)
    [ "$(sed '1d;/^$/q' "$1" | grep -aiE '^(newsgroups|message-id):|^[^:]+$|^[[:space:]]')" = "$(printf \
        'Newsgroups: %s\nMessage-ID: <%s@%s>' "$2" "$3.${id#*:}" "$2")" ] || fail "the headers do not agree with $what"
    [ "$(wc -c <"$file")" -le 65536 ] && ! grep -aqvxE "$any" "$file" && ! grep -aqE "$never" "$file" &&
        ! grep -avxE "$forms" "$file" | grep -aqiE "^($used|$rest): " || fail "$what is too large, or has an odd line"
    kind=$(value Tidings 1) kind=${kind#1 } previous=$(value Previous 4) under=$(value Trust 6)
    case ${2##*.}:$kind:$under in # what kind stands where (2.2-3); trust is under no other trust (3.1-4)
        trust:trust:) under=0 ;; beat:beat:*) ;; trust:* | beat:* | *:trust:* | *:beat:*) kind= ;; esac
    case $3:$previous in 1:-) ;; 1:* | *:-) previous= ;; esac # (3.1-4)
    [ "$(head -n 3 "$file")" = "$(printf 'Tidings: 1 %s\nChannel: %s\nSerial: %s' "$kind" "$2" "$3")" ] &&
        [ -n "$previous" ] && [ -n "$(value Time 5)" ] && [ -n "$under" ] || fail "$what does not begin as it has to"
    times=$(value Time; value Expires)
    [ "$(echo "$times" | date -u -f - +%Y-%m-%dT%H:%M:%SZ 2>&1)" = "$times" ] || fail "$what has a time that cannot be"
    awk -v known="^($used|$rest):\$" '
        { of = $1 == "Role:" ? $2 " " $3 : $1 ~ /^(Key|Checkpoint|Head|Signature):$/ ? $2 : "" }
        $1 ~ known && $1 !~ /^(Target|Payload):$/ { bad += seen[$1, of]++ } # what may stand once stands once
        $1 ~ /^(Time|Expires):$/ { bad += $2 <= time; time = $2 }
        $1 == "Key:" { bad += named[$3]++ }
        $1 == "Role:" { bad += $4 > NF - 4; for (i = 5; i <= NF; i++) bad += !named[$i] || seen[NR, $i]++ }
        { if ($1 == "Signature:") n++; else bad += n }
        END { exit bad || !n || n > 16 }' "$file" || fail "$what has fields that do not fit together"
}

# meets N: refuse the statement looked at last, unless trust statement N lets its signers say it (5.2).
meets() {
    role=$(grep "^Role: $kind " "$1.statement" | awk -v channel="$(value Channel)=" '
        { stem = $3 "="; sub(/[*]=$/, "", stem) } # what the channel has to begin with; the longest counts (4.3-1)
        substr(channel, 1, length(stem)) == stem && length(stem) >= best { best = length(stem); role = $0 }
        END { print role }' | cut -d' ' -f4- | grep .) held=0 || fail "there is no role for $what"
    value Signature >signatures
    while read -r public signature; do
        signer=$(sed -n "s/^Key: $public //p" "$1.statement" | grep .) || continue # a stranger says nothing
        # The key as RFC 8410 has it, for OpenSSL.
        { printf '\060\052\060\005\006\003\053\145\160\003\041\000'; printf %s "${public#*:}=" | basenc -d --base64url; } >key
        printf %s "$signature==" | basenc -d --base64url >signature
        openssl pkeyutl -verify -pubin -keyform DER -inkey key -rawin -in signed -sigfile signature >/dev/null 2>&1 ||
            fail "a signature of $what does not hold"
        case " ${role#* } " in *" $signer "*) held=$((held + 1)) ;; esac
    done <signatures
    [ "$held" -ge "${role%% *}" ] || fail "$what has $held signatures that count, and needs ${role%% *}"
}

[ $# -eq 4 ] && [ -r "$2" ] || fail "usage: device.sh HOST:PORT CA_FILE CHANNEL 'NAMESPACE sha256:HEX', CA_FILE readable"
broker=$1 ca=$(realpath -- "$2") channel=$3 anchor=${4#* } log=${4%% *}.trust cr=$(printf '\r')
printf '%s %s %s' "$channel" "$log" "$anchor" | tr '\n' '?' | grep -qxE "$name $name $digest" &&
    [ "${channel#"${log%trust}"}" != "$channel" ] || fail 'that is not a channel and the anchor of its namespace'
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT && trap 'exit 1' HUP INT TERM && cd "$dir" || fail 'no temporary directory'

# The channel first, so that the trust statement that its newest one is signed under is there too.
printf '%s\n' "GROUP $channel" "GROUP $log" QUIT | talk groups || exit 1
set -- $(awk '$1 == 211 && $4 ~ /^[1-9][0-9]*$/ && $4 <= 2147483647 { print $4 }' groups)
[ $# -eq 2 ] || fail "the broker does not have statements of $channel and of $log"
newest=$1 trusts=$2 last=$(($2 + 1)) id=
{ echo "GROUP $log"; seq -f 'ARTICLE %.0f' "$trusts"; printf '%s\n' "GROUP $channel" "ARTICLE $newest" QUIT; } |
    talk answers || exit 1
awk -v want="$last" '
    !inside { if (/^220 /) { inside = 1; n++ } else next }
    $0 == "." { inside = 0; whole++; close(n); next }
    { sub(/^[.]/, ""); print >(n "") }
    END { exit whole != want }' answers || fail 'the broker does not send every statement'

for n in $(seq "$trusts"); do # walk the trust log (5.4)
    look "$n" "$log" "$n"
    case $n in 1) [ "$id" = "$anchor" ] ;; *) [ "$previous" = "$before" ] && meets $((n - 1)) ;; esac ||
        fail "$what does not go back to the anchor"
    meets "$n"
done
expr "$(value Expires)" \> "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >/dev/null || fail 'the trust in force has expired'
settled=$(awk -v channel="$channel" '$1 == "Checkpoint:" && $2 == channel { print $3, $4 }' "$file")
look "$last" "$channel" "$newest"
[ "$under" -le "$trusts" ] || fail "$what is signed under a trust statement that is not there"
# A checkpoint of the trust in force vouches for one statement, and stands against all others of that serial (5.3-2).
case $settled in "$newest "*) [ "$settled" = "$newest $id" ] ;; *) meets "$trusts" ;; esac ||
    fail "$what is not the one that the trust in force has settled"
cat signed
