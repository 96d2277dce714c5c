# Makes a raw copy of a server's volume safe to hand out. Everything that is not the databases goes: what is not listed here does not leave.
[ -f "$root/marker" ] || fail "the copy is empty or not a TerminusDB volume: the snapshot does not hold what its store holds"
known_version
check_labels

for strange in "$(strange_files "$volume" terminusdb lost+found)" "$(strange_files "$root" db marker)"; do
  printf '%s\n' "$strange"
done | while read -r entry; do
  [ -z "$entry" ] || rm -rf "$entry"
done

# Logins: nobody knows the administrator's password until a clone sets its own, and there is no other user; not even the one who gives no password, by
# which a public database is read.
terminus "the system database does not open" user get --json
values @id | grep '^User/' | grep -vx User/admin | sort -u >"$HOME/users" || true
while read -r user; do
  terminus "cannot remove a login" user delete --id "$user"
done <"$HOME/users"
terminus "cannot replace the administrator's password" user password admin "--password=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')"

terminus "the databases are not to be listed" db list --json
values path | sort -u >"$HOME/databases"
grep -qx "$(path "$COPPICE_DATABASE")" "$HOME/databases" ||
  fail "the copy holds no database $COPPICE_DATABASE, but $(sed 's,^admin/,,' "$HOME/databases" | paste -sd ' ' -)"
: >"$HOME/states"
while read -r name; do
  terminus "the database $name of the copy does not open" doc get "$name/_meta" --type=Remote --as_list
  values name | sort -u >"$HOME/remotes"
  while read -r remote; do
    terminus "cannot remove a remote of $name" remote remove "$name" "$remote"
  done <"$HOME/remotes"
  terminus "the database $name of the copy does not read" doc get "$name" --count=1 --as_list
  terminus "the branches of $name are not to be listed" doc get "$name/local/_commits" --type=Branch --as_list
  printf '{"p":"%s","b":%s}\n' "$name" "$(tr -d '\n' <"$HOME/output")" >>"$HOME/states"
done <"$HOME/databases"

printf '%s\n' "$COPPICE_MARKER" >"$root/marker.new"
mv "$root/marker.new" "$root/marker"
sync -f "$root"
printf '{"v":"%s","m":"%s","d":[%s]}\n' "$version" "$COPPICE_DATABASE" "$(paste -sd , "$HOME/states")"
