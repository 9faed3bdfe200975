#!/bin/sh
# A listener (part 1 of the specification): asks a broker for the newest statement of a channel, verifies it from the
# anchor on, and prints its signed part; with COMMAND it goes on, and runs COMMAND for each statement that comes.
#
#     device.sh HOST:PORT CA_FILE CHANNEL 'NAMESPACE SERIAL sha256:HEX' [COMMAND…]
#
# Exit code 0: what is on standard output is verified. 1: nothing is there, and a line on standard error says why.
# It needs a POSIX shell, awk, OpenSSL 3, and grep, sed, iconv and coreutils of GNU. It must not install (1-1); it keeps
# nothing (1-31) and ends with its connection. It checks no R (1-6), no fields of releases (1-9), and of what only the holders
# of keys for trust can write no more than decides about what it shows.
set -fu; export LC_ALL=C # lengths and ranges are of octets
fail() { printf 'device.sh: %s\n' "$*" >&2; exit 1; }

# The forms of lines; the last characters of keys and signatures have no loose bits (1-6).
part='[a-z0-9][a-z0-9+_-]*' name="$part(\\.$part)+" serial='[1-9][0-9]{0,9}' digest='sha256:[0-9a-f]{64}' word='[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}'
pattern="(\\*|$part(\\.$part)*\\.\\*|$name)" kinds='(release|withdraw|trust|beat)' key='ed25519:[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]' cr=$(printf '\r')
time='(19[7-9]|[2-9][0-9]{2})[0-9](-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z' any='[A-Za-z][A-Za-z0-9-]{0,63}: [^[:cntrl:] ]( *[^[:cntrl:] ])*'
known='Tidings|Channel|Serial|Previous|Time|Trust|Critical|Expires|Key|Role|Checkpoint|Closed|Signature'
forms="(Tidings: 1 $kinds|Channel: $name|(Serial|Trust): $serial|Previous: (-|$digest)|(Time|Expires): $time|Key: $key $word|Critical: $word( $word)*\
|Role: $kinds $pattern $serial( $word)+|Checkpoint: $name $serial $digest|Closed: $pattern( $name)*|Signature: $key [A-Za-z0-9_-]{85}[AQgw])"
# What no line has: too many octets, control characters of Unicode, and keys of small order or not below the prime (1-6, 1-7).
never=$(printf '.{901}|\302[\200-\237]|^Key: ed25519:(A[AQ]A{39}[AI]A|[789_-][Pfv_]_{39}[3_]8|JuiVj8KyJ7BFw_SJ8u-Y.{23}|xxdqcD1N2E-6PAt2DRBn.{23}) ')
# Whether a pattern matches a channel (1-14).
hit='function hit(p, c) { return p == "*" || p == c || p ~ /[*]$/ && index(c, substr(p, 1, length(p) - 1)) == 1 }'

line() { IFS= read -r answer <&4 && [ "${answer%"$cr"}" != "$answer" ] && answer=${answer%"$cr"} || fail 'the broker has gone (1-26)'; }
say() { want=$1 && shift && printf '%s\r\n' "$*" >&3 && line; case $answer in $want*) ;; *) fail "the broker says: $answer" ;; esac; }
group() { say 211 GROUP "$1"; highest=$(expr "$answer " : '211 [0-9]* [0-9]* \([1-9][0-9]*\) ') || fail "the broker says: $answer"; }
# article LINES, or up to a dot if that is empty: the body of an article, in the file `new` (1-27)
article() { while [ "$1" != 0 ] && line && [ "$1$answer" != . ]; do printf '%s\n' "$answer"; set -- "${1:+$(($1 - 1))}"; done | head -c 131072 | sed '1,/^$/d' >new; }
value() { sed -n "${2-}s/^$1: //p" new; } # NAME [LINE]

form() { # CHANNEL: refuses the statement in `new` unless it is one of that channel (1-2 to 1-12, 1-20, 1-21)
    what="a statement of $1" && sed '/^Signature: /,$d' new >signed && id=sha256:$(sha256sum <signed | cut -d' ' -f1)
    kind=$(value Tidings 1) kind=${kind#1 } number=$(value Serial 3) previous=$(value Previous 4) under=$(value Trust 6)
    iconv -f UTF-8 -t UTF-8 new >/dev/null 2>&1 && [ "$(wc -c <new)" -le 65536 ] && ! grep -aqE "$never" new && ! grep -aqvxE "$any" new &&
        ! grep -avxE "$forms" new | grep -aqiE "^($known): " || fail "$what has an odd line (1-8)"
    case ${1##*.}:$kind:${under:+t} in trust:trust: | beat:beat:t) ;; trust:* | beat:* | *:trust:* | *:beat:* | *:) kind= ;; esac
    case $number:$previous in 1:-) ;; 1:* | *:-) kind= ;; esac
    times=$(value Time 5; value Expires) && [ "$(head -n 3 new)" = "$(printf 'Tidings: 1 %s\nChannel: %s\nSerial: %s' "$kind" "$1" "$number")" ] &&
        [ "$number" -le 2147483647 ] && [ "$(echo "$times" | date -u -f - +%Y-%m-%dT%H:%M:%SZ 2>&1)" = "$times" ] || fail "$what begins wrongly (1-9)"
    awk -v known="^($known):\$" -v kind="$kind" '{ all[$1] = 1; bad += $1 != "Signature:" && n; n += $1 == "Signature:" }
        $1 ~ known { bad += seen[$1, $1 == "Role:" ? $2 " " $3 : $1 ~ /^(Key|Checkpoint|Signature):$/ ? $2 : $1 == "Closed:" ? $0 : ""]++ }
        $1 ~ /^(Key|Role|Checkpoint|Closed):$/ { bad += kind != "trust" || $1 == "Key:" && named[$3]++ }
        $1 == "Role:" { bad += $4 > NF - 4 || $4 > 16; for (i = 5; i <= NF; i++) bad += !named[$i] || again[NR, $i]++ }
        $1 ~ /^(Time|Expires):$/ { bad += $2 <= time; time = $2 } $1 == "Critical:" { for (i = 2; i <= NF; i++) need[$i ":"] }
        END { for (f in need) bad += !(f in all) || f ~ /^(Critical|Signature):$/
            exit bad || !n || n > 16 || ("Expires:" in all) != (kind ~ /^(trust|beat)$/) }' new || fail "$what has fields that do not fit together (1-11)"; }
meets() { # TRUST: refuses the statement in `new` unless it meets its role there (1-14, 1-15)
    held=$(awk -v kind="$kind" -v channel="$(value Channel)" "$hit"' FNR == NR && $1 == "Key:" { key[$3] = $2 }
        FNR == NR && $1 == "Role:" && $2 == kind && hit($3, channel) && (l = 2 * length($3) + ($3 !~ /[*]$/)) > best {
            best = l; need = $4; split("", may); for (i = 5; i <= NF; i++) may[key[$i]] }
        FNR < NR && $1 == "Signature:" && $2 in may { print $2, $3 } END { print(need ? need : 17) >"need" }' "$1" new | while read -r public signature; do
        # A key in the form of RFC 8410, for OpenSSL.
        { printf '\060\052\060\005\006\003\053\145\160\003\041\000'; printf %s "${public#*:}=" | basenc -d --base64url; } >key; printf %s "$signature==" | basenc -d --base64url >signature
        openssl pkeyutl -verify -pubin -keyform DER -inkey key -rawin -in signed -sigfile signature >/dev/null 2>&1 && echo held; done | wc -l)
    [ "$held" -ge "$(cat need)" ] || fail "$what has $held signatures that count, which is not enough (1-14, 1-15)"; }
walk() { # the trust statement in `new` comes into force, or is refused (1-13, 1-16 to 1-19)
    if form "$log"; [ ! -s trust ]; then [ "$number $id" = "$anchor" ] || fail "$what is not the anchor (1-16)"
    else [ "$number $previous" = "$((at + 1)) $trusted" ] && meets trust || fail "$what does not follow the one in force (1-17)"; fi
    ! grep '^Closed: ' trust | grep -qvxFf new || fail "$what opens what is closed (1-18)"
    ! value Critical | tr ' ' '\n' | grep -qvxE "$known" && meets new && mv new trust && at=$number trusted=$id || fail "$what has an unknown field (1-13)"; }
show() { # the statement in `new`, if it is proven (1-20 to 1-25)
    form "$channel"; settled=$(sed -n "s/^Checkpoint: $channel //p" trust)
    awk -v c="$channel" "$hit"' $1 == "Closed:" { x = hit($2, c); for (i = 3; i <= NF; i++) x = x && $i != c; y += x } END { exit y }' trust || fail "$channel is closed (1-22)"
    [ "$under" -le "$at" ] || fail "$what is signed under trust $under, which is not there (1-23)"
    case $settled in "$number $id" | "$((number - 1)) $previous") ;; "$number "* | "$((number - 1)) "*) fail "$what is not on the settled branch (1-24)" ;; esac
    [ "$settled" = "$number $id" ] || meets trust; last=$number; cat signed; }

[ $# -ge 4 ] && [ -r "$2" ] || fail "usage: device.sh HOST:PORT CA_FILE CHANNEL 'NAMESPACE SERIAL sha256:HEX' [COMMAND…], CA_FILE readable"
broker=$1 ca=$(realpath -- "$2") channel=$3 line=$4 anchor=${4#* } log=${4%% *}.trust; shift 4
printf '%s %s' "$channel" "$line" | tr '\n' '?' | grep -qxE "($part(\\.$part)*)(\\.$part)+ \\1 $serial $digest" || fail 'that is not a channel and the anchor of its namespace'
dir=$(mktemp -d) && trap 'rm -rf "$dir"; kill $! 2>/dev/null' EXIT && trap 'exit 1' HUP INT TERM && cd "$dir" && mkfifo to from || fail 'no room'
timeout $(($# ? 3600 : 30)) openssl s_client -quiet -nocommands -tls1_3 -verify_return_error -CAfile "$ca" -connect "$broker" <to >from 2>/dev/null &
exec 3>to 4<from; line; case $answer in 20[01]*) ;; *) fail "the broker says: $answer" ;; esac
# The channel first, so that the trust statement that its newest one is signed under is there too.
group "$channel"; newest=$highest; group "$log"; : >trust; for n in $(seq "${anchor%% *}" "$highest"); do say 220 ARTICLE "$n"; article ''; walk; done
group "$channel"; say 220 ARTICLE "$newest"; article ''; show; [ $# -gt 0 ] || exit 0
"$@" <signed; say 290 XWATCH "$channel:$last" "$log:$at"
# What a watch brings (1-28 to 1-30).
while line; do case $answer in 0) ;; *"@$log> "*) article "${answer##* }"; walk ;; *' <'*) article "${answer##* }"; show; "$@" <signed ;; *) exit ;; esac; done
