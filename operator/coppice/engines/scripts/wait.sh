# Wait until somebody listens on the server's port, by the kernel's own list: no connection that would count as one, no program to start.
wanted=$(printf ':%04X/0A' "$COPPICE_PORT")
while :; do
  for table in /proc/net/tcp /proc/net/tcp6; do
    [ -r "$table" ] || continue
    while read -r _ address _ state _; do
      case $address/$state in
      *"$wanted") exit 0 ;;
      esac
    done <"$table"
  done
  sleep 0.05
done
