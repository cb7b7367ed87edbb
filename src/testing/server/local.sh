# Runs a throwaway PostgreSQL in directory $2 with the binaries of $1 until standard input ends: a new cluster, or, if
# $3 is not empty, a standby of the one at that port. The rest are the server's arguments. The first line of input is
# the superuser's password. Whoever holds the other end may be killed at any moment: this shell is the server's parent,
# so it needs no pid file to find it.
bin=$1 dir=$2 primary=$3
shift 3
trap '' HUP INT TERM
umask 077
mkdir "$dir" || exit 1
exec 3<&0 </dev/null >"$dir/server.log" 2>&1

new_cluster() {
    printf '%s\n' "$password" >"$dir/password"
    "$bin/initdb" --pgdata="$dir/data" --username=postgres --auth=scram-sha-256 \
        --pwfile="$dir/password" --encoding=UTF8 --locale=C --no-sync && rm "$dir/password"
}
# With a slot: what the standby has not got yet is kept for it, also while it is away.
standby() {
    slot=$(basename "$dir" | tr -c 'a-z0-9\n' _)
    PGPASSWORD=$password "$bin/pg_basebackup" --pgdata="$dir/data" --host=127.0.0.1 --port="$primary" \
        --username=postgres --write-recovery-conf --wal-method=stream --create-slot --slot="$slot" \
        --checkpoint=fast --no-sync
}

if IFS= read -r password <&3; then
    if { if [ -n "$primary" ]; then standby; else new_cluster; fi; } 3<&-; then
        # CONT, for a stopped server sees no other signal; again and again, for one that is just starting
        # ignores them, as background processes of a shell do.
        {
            while read -r _; do :; done <&3
            : >"$dir/ending"
            while [ ! -e "$dir/exited" ]; do
                read -r server <"$dir/pid" && kill -CONT "$server" && kill -QUIT "$server"
                sleep 0.1
            done
        } &
        # Once, and again each time that somebody has left the file "restart" before he killed it.
        while [ ! -e "$dir/ending" ]; do
            rm -f "$dir/restart"
            "$bin/postgres" -D "$dir/data" "$@" 3<&- &
            server=$!
            echo $server >"$dir/pid"
            wait $server
            [ -e "$dir/restart" ] || break
        done
    fi
fi
: >"$dir/exited"
wait
while read -r _; do :; done <&3
rm -rf "$dir"
