# The port is open from before recovery on; the eighth line of this file says when logins are answered. It is this server's own file, for it is
# written before the port is opened.
while :; do
  number=0
  while read -r line; do
    number=$((number + 1))
    [ "$number" != 8 ] || [ "${line%% *}" != ready ] || exit 0
  done <"$COPPICE_DATA/postgresql/data/postmaster.pid"
  sleep 0.05
done
