# Brings a copy of a volume that somebody else's server laid out into Coppice's layout, before it is prepared like any other. Each step can be
# repeated after a crash: what is on the way is in $adopting, and one rename makes it what it is to be.
adopting=$volume/.coppice

# data_directory: where the server had its data.
data_directory() {
  if [ -n "$COPPICE_DIRECTORY" ]; then
    case /$COPPICE_DIRECTORY/ in */../*) fail "spec.adopted.directory leads out of the volume" ;; esac
    [ -f "$volume/$COPPICE_DIRECTORY/global/pg_control" ] ||
      fail "the volume holds no data directory $COPPICE_DIRECTORY: correct spec.adopted.directory"
    printf '%s\n' "$volume/${COPPICE_DIRECTORY%/}"
    return
  fi
  found=$(find "$volume" -maxdepth 6 -path "$adopting" -prune -o -path '*/global/pg_control' -print 2>/dev/null | sed 's,/global/pg_control$,,' | sort)
  [ -n "$found" ] || fail "the copy is empty or holds no PostgreSQL data directory: the snapshot does not hold what the server has"
  [ "$(printf '%s\n' "$found" | wc -l)" -eq 1 ] ||
    fail "the volume holds several data directories: name one in spec.adopted.directory: $(printf '%s\n' "$found" | sed "s,^$volume/*,," | paste -sd ' ' -)"
  printf '%s\n' "$found"
}

adopt() {
  if [ ! -f "$adopting/source" ]; then
    directory=$(data_directory)
    owner=$(stat -c %u "$directory")
    [ "$owner" = "$(id -u)" ] || fail "the data are of user $owner: set spec.adopted.userID"
    mkdir -p "$adopting"
    printf '%s\n' "$directory" >"$adopting/source.new"
    mv "$adopting/source.new" "$adopting/source"
  fi
  directory=$(cat "$adopting/source")
  if [ "$directory" = "$volume" ]; then
    mkdir -p "$adopting/data"
    strange_files "$volume" .coppice lost+found | while read -r entry; do
      mv "$entry" "$adopting/data/"
    done
  elif [ ! -d "$adopting/data" ]; then
    mv "$directory" "$adopting/data"
  fi
  rm -rf "$root"
  printf 'adopted\n' >"$adopting/marker"
  mv "$adopting" "$root"
}

if [ -d "$adopting" ] || [ ! -f "$root/marker" ]; then
  adopt
fi
