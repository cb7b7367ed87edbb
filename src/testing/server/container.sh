# Removes the container $1 when standard input ends. A line of input reports that the creation has succeeded or failed.
# Without that line the parent process died during the creation, and Docker may create the container later.
name=$1 created=
trap '' HUP INT TERM
while read -r line; do created=$line; done

# Lists the container after each removal, because `docker rm --force` succeeds even if the container does not exist.
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
