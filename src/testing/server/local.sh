# Runs a PostgreSQL server until standard input ends. $1 is the directory of the binaries, and $2 the directory of the
# cluster. If $3 is empty, the cluster is new, with the default encoding $4; otherwise it is a standby of the local server
# at port $3. If $5 is empty, the script creates $2 and removes it at the end; otherwise $2 exists and is kept for the next
# start. The other arguments are those of the server. The first line of input is the superuser's password. The parent
# process may be killed at any moment. This shell is the parent of the server, so it can always stop it.
bin=$1 dir=$2 primary=$3 encoding=$4 keep=$5
shift 5
PATH=${PATH:+$PATH:}/usr/bin:/bin:/usr/sbin:/sbin
trap '' HUP INT TERM
umask 077
# Status 73 (EX_CANTCREAT of sysexits.h) tells the parent process that this account cannot use the directory.
[ -n "$keep" ] || mkdir "$dir" || exit 73
(: >"$dir/server.log") || exit 73
exec 3<&0 </dev/null >"$dir/server.log" 2>&1
echo $$ >"$dir/script"

new_cluster() {
    rm -rf "$dir/data"
    printf '%s\n' "$password" >"$dir/password"
    "$bin/initdb" --pgdata="$dir/data" --username=postgres --auth=scram-sha-256 \
        --pwfile="$dir/password" --encoding="$encoding" --locale=C --no-sync && rm "$dir/password"
}
# The file "complete" distinguishes a kept cluster from one whose creation was interrupted.
kept_cluster() { [ -e "$dir/complete" ] || { new_cluster && : >"$dir/complete"; }; }
# The replication slot makes the primary keep the WAL that the standby has not received, also while the standby is down.
standby() {
    slot=$(basename "$dir" | tr -c 'a-z0-9\n' _)
    PGPASSWORD=$password "$bin/pg_basebackup" --pgdata="$dir/data" --host=127.0.0.1 --port="$primary" \
        --username=postgres --write-recovery-conf --wal-method=stream --create-slot --slot="$slot" \
        --checkpoint=fast --no-sync
}
cluster() { if [ -n "$primary" ]; then standby; elif [ -n "$keep" ]; then kept_cluster; else new_cluster; fi; }

if IFS= read -r password <&3; then
    if cluster 3<&-; then
        # CONT first, because a stopped process receives no other signal. Repeated, because a server that is just
        # starting still ignores QUIT, as background processes of a shell do.
        {
            while read -r _; do :; done <&3
            (: >"$dir/ending")
            while [ ! -e "$dir/exited" ]; do
                # A kept directory can be deleted at any time. Nothing can be read from it then, so the whole group ends.
                [ -d "$dir" ] || kill -KILL 0
                read -r server <"$dir/pid" && kill -CONT "$server" && kill -QUIT "$server"
                sleep 0.1
            done
        } &
        # Restarts the server if the file "restart" exists: `crash()` creates it before it kills the server.
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
if [ -z "$keep" ]; then
    rm -rf "$dir"
else
    # "script" last: the next start waits until it is gone.
    (cd "$dir" && rm -f ending exited password pid restart && rm -f script)
fi
