# Brings a copy of a volume that somebody else's server laid out into Coppice's layout, before it is prepared like any other. Each step can be
# repeated after a crash: what is on the way is in $stage, and one rename makes it what it is to be.
stage=$volume/.coppice

# storage_directory: where the server had its databases; relative to the volume.
storage_directory() {
  if [ -n "$COPPICE_DIRECTORY" ]; then
    case /$COPPICE_DIRECTORY/ in */../*) fail "spec.adopted.directory leads out of the volume" ;; esac
    [ -f "$volume/$COPPICE_DIRECTORY/STORAGE_VERSION" ] ||
      fail "the directory $COPPICE_DIRECTORY of the volume holds no TerminusDB: correct spec.adopted.directory"
    printf '%s\n' "$COPPICE_DIRECTORY"
    return
  fi
  found=$(find "$volume" -mindepth 1 -maxdepth 6 -path "$stage" -prune -o -type f -name STORAGE_VERSION -print 2>/dev/null | sort)
  [ -n "$found" ] || fail "the copy is empty or holds no TerminusDB: the snapshot does not hold what the server has"
  [ "$(printf '%s\n' "$found" | wc -l)" -eq 1 ] ||
    fail "the volume holds several stores of TerminusDB: name the directory of one in spec.adopted.directory"
  found=${found%/STORAGE_VERSION}
  found=${found#"$volume"}
  printf '%s\n' "${found:-.}"
}

adopt() {
  if [ ! -f "$stage/marker" ]; then
    if [ ! -f "$stage/source" ]; then
      directory=$(storage_directory)
      mkdir -p "$stage/db"
      printf '%s\n' "$directory" >"$stage/source.new"
      mv "$stage/source.new" "$stage/source"
    fi
    directory=$volume/$(cat "$stage/source")
    # Labels, layers, and last what the directory is known by.
    for entry in "$directory"/*.label "$directory"/[0-9a-f][0-9a-f][0-9a-f] "$directory/STORAGE_VERSION"; do
      [ ! -e "$entry" ] || mv "$entry" "$stage/db/"
    done
    rm -f "$stage/source"
    printf 'adopted\n' >"$stage/marker"
    sync -f "$stage"
  fi
  rm -rf "$root"
  mv "$stage" "$root"
}

if [ ! -f "$root/marker" ]; then
  adopt
fi
