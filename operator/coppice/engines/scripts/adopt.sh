# Brings a copy of a volume that somebody else's server laid out into Coppice's layout, before it is prepared like any other. Each step can be
# repeated after a crash: what is on the way is in $stage, and one rename makes it what it is to be.
stage=$volume/.coppice

# databases_below: the directories on the volume that are a Dolt database, one a line; not what was dropped there, nor what is inside of one.
databases_below() {
  find "$volume" -mindepth 1 -maxdepth 6 \( -path "$stage" -o -name .dolt_dropped_databases \) -prune -o -type d -name .dolt -prune -print 2>/dev/null |
    sort | while read -r entry; do
    if [ -d "$entry/noms" ]; then
      printf '%s\n' "${entry%/.dolt}"
    fi
  done
}

# data_directory: where the server had its data; relative to the volume.
data_directory() {
  if [ -n "$COPPICE_DIRECTORY" ]; then
    case /$COPPICE_DIRECTORY/ in */../*) fail "spec.adopted.directory leads out of the volume" ;; esac
    [ -d "$volume/$COPPICE_DIRECTORY" ] || fail "the volume holds no directory $COPPICE_DIRECTORY: correct spec.adopted.directory"
    printf '%s\n' "$COPPICE_DIRECTORY"
    return
  fi
  found=$(databases_below)
  [ -n "$found" ] || fail "the copy is empty or holds no Dolt database: the snapshot does not hold what the server has"
  # A volume that is a database itself, as a server makes it that is started in one, has the others inside.
  if [ -d "$volume/.dolt/noms" ]; then
    printf '.\n'
    return
  fi
  parents=$(printf '%s\n' "$found" | sed 's,/[^/]*$,,' | sort -u)
  [ "$(printf '%s\n' "$parents" | wc -l)" -eq 1 ] ||
    fail "the volume holds databases in several directories: name one in spec.adopted.directory: $(printf '%s\n' "$parents" | sed "s,^$volume/*,," | paste -sd ' ' -)"
  parents=${parents#"$volume"}
  printf '%s\n' "${parents:-.}"
}

adopt() {
  if [ ! -f "$stage/marker" ]; then
    if [ ! -f "$stage/source" ]; then
      directory=$(data_directory)
      mkdir -p "$stage/databases"
      printf '%s\n' "$directory" >"$stage/source.new"
      mv "$stage/source.new" "$stage/source"
    fi
    directory=$volume/$(cat "$stage/source")
    each_database "$directory" | while read -r name; do
      mv "$directory/$name" "$stage/databases/"
    done
    # The server calls it as the directory, which is not on the volume, was called there: what is missing is its name.
    if [ -d "$directory/.dolt/noms" ]; then
      [ ! -e "$stage/databases/$COPPICE_DATABASE/.dolt" ] ||
        fail "the data directory is a database itself, and none of the names that the server gives its databases is left for it"
      mkdir -p "$stage/databases/$COPPICE_DATABASE"
      mv "$directory/.dolt" "$stage/databases/$COPPICE_DATABASE/"
    fi
    [ -n "$(each_database "$stage/databases")" ] || fail "the directory of the copy is empty or holds no Dolt database"
    strange_files "$volume" .coppice lost+found | while read -r entry; do
      rm -rf "$entry"
    done
    rm -f "$stage/source"
    printf 'adopted\n' >"$stage/marker"
    sync -f "$stage"
  fi
  mv "$stage" "$root"
}

if [ ! -f "$root/marker" ] || [ -d "$root/.dolt" ]; then
  adopt
fi
