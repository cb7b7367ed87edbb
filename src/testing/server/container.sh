# Removes container $1 when standard input ends. A line of input says that its creation is over; without one
# the client died in the middle of it, and Docker may still be creating it for a while.
name=$1 created=
trap '' HUP INT TERM
while read -r line; do created=$line; done

# `docker rm --force` says nothing when it finds no container, so only looking again tells.
tries=60
while [ $tries -gt 0 ]; do
    if [ -n "$(docker ps --all --quiet --filter "name=^$name\$")" ]; then
        docker rm --force --volumes "$name"
        created=yes
    elif [ -n "$created" ]; then
        exit
    fi
    tries=$((tries - 1))
    sleep 0.5
done
