#!/bin/sh
# Start a Redis Sentinel with the right master in its configuration.
#
# What it does, in this order:
#   1. makes a writable copy of a template, unless a copy from an earlier run is there (Sentinel
#      keeps its id, its peers and its epochs in it, and they must survive);
#   2. asks the OTHER Sentinels who is master: their answer with the highest configuration epoch
#      wins over every file, so a Sentinel that was away does not come back with an old master;
#   3. where none of them answers, keeps what an earlier copy says, else waits until the name of
#      MASTER_HOST resolves;
#   4. puts that address into the `sentinel monitor` line and becomes the Sentinel.
#
# It leaves out: reaching quorum, TLS, ACL users, and passwords for Sentinels themselves. Let
# Sentinels listen only where the hosts of the stack can reach them.
#
# Usage: start-sentinel.sh [--check] [host:port ...]      (the other Sentinels)
#   --check prepares the configuration and prints its `sentinel monitor` line, then ends.
#
# Environment (default):
#   SENTINEL_TEMPLATE   template with `sentinel monitor NAME ...` (/etc/redis/sentinel.conf.template)
#   SENTINEL_CONF       the writable copy (/var/lib/redis-sentinel/sentinel.conf)
#   MASTER_NAME         the name of the datastore among Sentinels (tier0master)
#   MASTER_HOST         name or address of the first master (redis)
#   MASTER_PORT         its port (6379)
#   QUORUM              quorum of the first start (2)
#   PASSWORD_FILE       file with the data servers' password; optional, replaces `auth-pass`
#   OTHER_SENTINELS     host:port separated by commas or spaces, added to the arguments
#   RESOLVE_SECONDS     how long to wait for the name (60)
#   REDIS_CLI, SENTINEL_BINARY   (redis-cli, redis-sentinel or redis-server)

set -eu

template=${SENTINEL_TEMPLATE:-/etc/redis/sentinel.conf.template}
conf=${SENTINEL_CONF:-/var/lib/redis-sentinel/sentinel.conf}
name=${MASTER_NAME:-tier0master}
host=${MASTER_HOST:-redis}
port=${MASTER_PORT:-6379}
quorum=${QUORUM:-2}
password_file=${PASSWORD_FILE:-}
resolve_seconds=${RESOLVE_SECONDS:-60}
cli=${REDIS_CLI:-redis-cli}

say() { printf 'start-sentinel: %s\n' "$1" >&2; }
fail() { say "$1"; exit 1; }

check=no
if [ "${1:-}" = "--check" ]; then check=yes; shift; fi
others=$(printf '%s %s' "$*" "${OTHER_SENTINELS:-}" | tr ',' ' ')

case $name in *[!A-Za-z0-9._-]*|'') fail "MASTER_NAME '$name' may hold only letters, digits, '.', '_' and '-'" ;; esac
case $port in *[!0-9]*|'') fail "MASTER_PORT '$port' is not a number" ;; esac
case $quorum in *[!0-9]*|'') fail "QUORUM '$quorum' is not a number" ;; esac
case $resolve_seconds in *[!0-9]*|'') fail "RESOLVE_SECONDS '$resolve_seconds' is not a number" ;; esac

# 1. The copy.
directory=$(dirname "$conf")
mkdir -p "$directory" 2>/dev/null || fail "cannot create $directory"
[ -w "$directory" ] || fail "$directory is not writable, and Sentinel must rewrite its configuration there"
umask 077
if [ -s "$conf" ]; then
    earlier=yes
    source=$conf
else
    earlier=no
    source=$template
    [ -r "$template" ] || fail "cannot read the template $template"
fi
grep -q "^sentinel monitor $name " "$source" \
    || fail "$source has no line 'sentinel monitor $name <address> <port> <quorum>'"

# 2. The others. One answer per Sentinel within two seconds; the highest epoch wins.
best_epoch=-1
best_address=
for other in $others; do
    other_port=${other##*:}
    other_host=${other%:*}
    [ "$other_host" != "$other" ] || fail "'$other' is not host:port"
    answer=$(timeout 2 "$cli" -h "$other_host" -p "$other_port" SENTINEL MASTER "$name" 2>/dev/null) || answer=
    # Names and values are on alternating lines.
    found=$(printf '%s\n' "$answer" | awk '
        NR % 2 { key = $0; next }
        key == "ip" { ip = $0 }
        key == "port" { port = $0 }
        key == "config-epoch" { epoch = $0 }
        END { if (ip != "" && port ~ /^[0-9]+$/ && epoch ~ /^[0-9]+$/) print epoch, ip, port }')
    if [ -z "$found" ]; then
        say "the Sentinel $other does not say who is master"
        continue
    fi
    epoch=${found%% *}
    if [ "$epoch" -gt "$best_epoch" ]; then
        best_epoch=$epoch
        best_address=${found#* }
    fi
done

# 3. The address.
current=$(sed -n "s/^sentinel monitor $name \([^ ]*\) \([0-9]*\) .*/\1 \2/p" "$source" | head -n 1)
if [ -n "$best_address" ]; then
    say "the other Sentinels name ${best_address% *}:${best_address#* } (epoch $best_epoch)"
    address=$best_address
elif [ "$earlier" = yes ]; then
    say "no other Sentinel answers; $conf names ${current% *}:${current#* }"
    address=$current
else
    waited=0
    while :; do
        ip=$(getent ahostsv4 "$host" | awk '{ print $1; exit }') || ip=
        [ -z "$ip" ] || break
        [ "$waited" -lt "$resolve_seconds" ] \
            || fail "the name $host did not resolve within $resolve_seconds s"
        [ "$waited" -gt 0 ] || say "waiting for the name $host to resolve"
        waited=$((waited + 1))
        sleep 1
    done
    say "$host resolves to $ip"
    address="$ip $port"
fi

# 4. The line, and the password.
new=$conf.new
if [ "$earlier" = yes ]; then
    # The quorum may have been changed at run time: keep it.
    line_quorum=$(sed -n "s/^sentinel monitor $name [^ ]* [0-9]* \([0-9]*\).*/\1/p" "$conf" | head -n 1)
    quorum=${line_quorum:-$quorum}
fi
sed "s|^sentinel monitor $name .*|sentinel monitor $name $address $quorum|" "$source" > "$new" \
    || fail "cannot write $new"
if [ "$address" != "$current" ]; then
    # Replicas of the old master: the new one may be among them, and Sentinel finds them again.
    sed "/^sentinel known-replica $name /d; /^sentinel known-slave $name /d" "$new" > "$new.2" \
        && mv "$new.2" "$new" || fail "cannot write $new"
fi
if [ -n "$password_file" ]; then
    [ -r "$password_file" ] || fail "cannot read the password file $password_file"
    password=$(cat "$password_file")
    case $password in
        '') fail "the password file $password_file is empty" ;;
        *[[:space:]\"\'\\]*) fail "the password must not hold white space, quotes or backslashes: Sentinel cannot store it" ;;
    esac
    # By the shell's own printf: a password never becomes an argument of another process.
    { sed "/^sentinel auth-pass $name /d" "$new"; printf 'sentinel auth-pass %s %s\n' "$name" "$password"; } > "$new.2" \
        && mv "$new.2" "$new" || fail "cannot write $new"
fi
# auth-pass is only accepted behind the monitor line it belongs to, which it is: it was appended.
mv "$new" "$conf" || fail "cannot replace $conf"

if [ "$check" = yes ]; then
    grep "^sentinel monitor $name " "$conf"
    exit 0
fi

binary=${SENTINEL_BINARY:-}
if [ -z "$binary" ]; then
    if command -v redis-sentinel >/dev/null 2>&1; then binary=redis-sentinel; else binary=redis-server; fi
fi
command -v "$binary" >/dev/null 2>&1 || fail "neither redis-sentinel nor redis-server is installed"
case $binary in
    *sentinel*) exec "$binary" "$conf" ;;
    *) exec "$binary" "$conf" --sentinel ;;
esac
