# Makes a copy that a mask has run on anew, of what the branch main of each database holds now: TerminusDB keeps what documents were, in layers that it
# never removes, and so do other branches. Each step can be repeated after a crash: what is complete is in $anew, and one rename makes it the volume's.
anew=$volume/.anew

# ids FILE: how many documents it holds, those within others too.
ids() {
  tr '\n' ' ' <"$1" | grep -o '"@id" *:' | wc -l
}

# read_graph NAME GRAPH FILE: a graph of a database, into a file.
read_graph() {
  terminusdb doc get "$1" "--graph_type=$2" --as_list >"$3" 2>"$HOME/errors" ||
    fail "the database $1 of the masked copy does not read" "$(tail -n 2 "$HOME/errors" | cut -c 1-300 | paste -sd ' ' -)"
}

# write_graph NAME GRAPH FILE: the same into the database that is new.
write_graph() {
  replace=
  [ "$2" = instance ] || replace=--full_replace
  terminus "the database $1 cannot be made anew" doc insert "$1" "--graph_type=$2" ${replace:+"$replace"} --author=coppice "--message=Masked data" <"$3"
}

rewrite() {
  [ -f "$root/marker" ] || fail "the copy is empty or not a TerminusDB volume: the snapshot does not hold what its store holds"
  known_version
  check_labels
  rm -rf "$stage"
  mkdir -p "$stage/graphs"
  terminus "the databases are not to be listed" db list --json
  values path | sort -u >"$HOME/databases"
  export TERMINUSDB_SERVER_DB_PATH="$stage/db"
  terminus "cannot make a store" store init "--key=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')"
  while read -r name; do
    case $name in admin/*) ;; *) fail "the database $name is of another organisation than admin: it cannot be masked" ;; esac
    export TERMINUSDB_SERVER_DB_PATH="$root/db"
    read_graph "$name" schema "$stage/graphs/schema.json"
    read_graph "$name" instance "$stage/graphs/instance.json"
    export TERMINUSDB_SERVER_DB_PATH="$stage/db"
    terminus "cannot make the database $name" db create "$name"
    write_graph "$name" schema "$stage/graphs/schema.json"
    write_graph "$name" instance "$stage/graphs/instance.json"
    read_graph "$name" instance "$stage/graphs/written.json"
    [ "$(ids "$stage/graphs/instance.json")" -eq "$(ids "$stage/graphs/written.json")" ] ||
      fail "the database $name that was made anew does not hold as many documents as the masked one"
  done <"$HOME/databases"
  rm -rf "$stage/graphs"
  cp "$root/marker" "$stage/marker"
  sync -f "$stage"
  mv "$stage" "$anew"
  sync -f "$volume"
}

if [ ! -d "$anew" ]; then
  rewrite
fi
rm -rf "$root"
mv "$anew" "$root"
sync -f "$volume"
export TERMINUSDB_SERVER_DB_PATH="$root/db"
