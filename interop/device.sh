#!/bin/sh
# The least that a device needs: asks a broker for the newest statement of a channel, verifies it from the anchor on,
# and prints its signed part.
#
#     device.sh HOST:PORT CA_FILE CHANNEL 'NAMESPACE sha256:HEX'
#
# Exit code 0: what is on standard output is verified. 1: nothing is there, and a line on standard error says why.
# It needs a POSIX shell, awk, OpenSSL 3, and grep, sed and coreutils of GNU. It keeps nothing, so it cannot tell an old
# log from a new one (5.1); it does not look below the newest statement (5.3); and it hands on the values of fields that
# it does not use itself without judging them. Numbers in parentheses are those of the specification.
set -fu
export LC_ALL=C # lengths and ranges are of octets
fail() { printf 'device.sh: %s\n' "$*" >&2; exit 1; }

# Forms of lines (appendix A). The last characters of keys and signatures have no loose bits (2.6-1).
part='[a-z0-9][a-z0-9+_-]*' name="$part(\\.$part)+" serial='[1-9][0-9]{0,9}' word='[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}'
time='(19[7-9]|[2-9][0-9]{2})[0-9](-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z' kinds='(release|withdraw|trust|beat)'
digest='sha256:[0-9a-f]{64}' key='ed25519:[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]'
used='Tidings|Channel|Serial|Previous|Time|Trust|Critical|Expires|Key|Role|Checkpoint|Head|Signature'
forms="Tidings: 1 $kinds|Channel: $name|(Serial|Trust): $serial|Previous: (-|$digest)|(Time|Expires): $time\
|Key: $key $word|Role: $kinds (\\*|$part(\\.$part)*\\.\\*|$name) $serial( $word)+\
|(Checkpoint|Head): $name $serial $digest|Critical: $word( $word)*|Signature: $key [A-Za-z0-9_-]{85}[AQgw]"
t=$(printf '[\200-\277]') # goes on with a character in UTF-8; U+0080 to U+009F are controls
text=$(printf "[!-~]|\302[\240-\277]|[\303-\337]$t|\340[\240-\277]$t|[\341-\354\356\357]$t$t|\355[\200-\237]$t")
text="($text$(printf "|\360[\220-\277]$t$t|[\361-\363]$t$t$t|\364[\200-\217]$t$t"))"
any="[A-Za-z][A-Za-z0-9-]{0,63}: $text( *$text)*"
# What is no key: points of small order, and numbers that are not below the prime (2.6-2).
weak='0[01]0{60}[08]0|26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc[08]5'
weak="$weak|c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03[7f]a|(e[c-f]|f.)(ff){30}[7f]f"

# talk FILE: send the commands on standard input; the answers come into the file, with LF for CR LF (8.1-2).
talk() {
    sed "s/\$/$cr/" | timeout 30 openssl s_client -quiet -nocommands -tls1_3 -verify_return_error "$check" "$host" \
        -CAfile "$ca" -connect "$broker" 2>/dev/null | head -c 16777216 >"$dir/raw"
    sed "s/$cr\$//" "$dir/raw" | tr -d '\r\000' >"$dir/$1"
    grep -q '^20[01] ' "$dir/$1" || fail "no broker answers at $broker with a certificate that $ca vouches for"
    sed "s/\$/$cr/" "$dir/$1" | cmp -s - "$dir/raw" || fail 'the answer is cut off, or has a CR, LF or NUL out of place'
}

# highest LINE CHANNEL: the highest serial in that line of the answers to GROUP.
highest() {
    sed -n "${1}s/^211 [0-9]* [0-9]* \([0-9]*\) $2\$/\1/p" "$dir/groups" | grep -xE "$serial" ||
        fail "the broker has no statement of $2"
}

value() { sed -n "s/^$1: //p" "$file"; }
octets() { printf %s "$1" | tr '_-' '/+' | base64 -d; }
sound() { octets "$1" | od -An -v -tx1 -N32 | tr -d ' \n' | grep -qvxE "$weak"; }

# look N CHANNEL SERIAL: refuse article N unless it has that statement, well formed (sections 2, 3, 4 and 7).
look() {
    file=$dir/$1.body what="statement $3 of $2"
    sed '/^Signature: /,$d' "$file" >"$dir/signed"
    id=sha256:$(sha256sum <"$dir/signed" | cut -d' ' -f1)
    awk -v channel="$2" -v id="<$3.${id#sha256:}@$2>" '
        /^[ \t]/ && !once || NR == 1 && $3 == id { next }
        { header = tolower($1); once = header ~ /^(path|newsgroups|message-id):$/ }
        $1 !~ /.:$/ || once && seen[header]++ || header == "newsgroups:" && $0 !~ /^[^ ]+ +[^ ]+ *$/ { exit wrong = 1 }
        header == "newsgroups:" && $2 != channel || header == "message-id:" && $2 != id { exit wrong = 1 }
        END { exit wrong }' "$dir/$1.head" || fail "the headers of $what do not agree with it"
    [ "$(wc -c <"$file")" -le 65536 ] || fail "$what is too large"
    if grep -aqvxE "$any" "$file" || grep -aqE '.{901}' "$file" || grep -aE "^($used): " "$file" | grep -aqvxE "$forms"
    then fail "$what has a line that is not well formed"; fi
    awk -v channel="$2" -v serial="$3" '
        BEGIN { # fields of each kind: ! must be there, * may be repeated
            of["release"] = "Version! Summary Details Urgency Target* Barrier Not-Before Deadline Rollout Slot Apply Payload*"
            of["withdraw"] = "Withdraws! Reason! Fallback"; of["trust"] = "Expires! Key* Role* Checkpoint*"
            of["beat"] = "Expires! Head*"; split("Tidings Channel Serial Previous Time Trust", first)
            known = " tidings channel serial previous time trust critical signature "
            for (kind in of) known = known tolower(of[kind]) " "
            gsub(/[!*]/, "", known)
        }
        { name = substr($1, 1, length($1) - 1); count[name]++ }
        NR == 1 { kind = $3; own = " " of[kind] " Critical Signature* "; last = channel; sub(/.*\./, "", last) }
        NR <= 6 - (kind == "trust") { if (name != first[NR]) exit wrong = 1; next }
        ...
