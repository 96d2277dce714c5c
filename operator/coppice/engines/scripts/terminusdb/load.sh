# The initial load: files in the order of their names. What ends in .schema.json is the schema, all other JSON is documents; lists, or one after another.
if [ -f "$root/marker" ]; then
  exit 0
fi
known_version
begin
target=${COPPICE_DATABASE:-$COPPICE_FALLBACK_DATABASE}
create_store "$target"

progress '.json' '.json.gz'
for file in "$COPPICE_LOAD"/*; do
  case $file in
  *.schema.json | *.schema.json.gz) graph=schema ;;
  *.json | *.json.gz) graph=instance ;;
  *) continue ;;
  esac
  case $file in
  *.gz) gzip -dc "$file" >"$HOME/documents.json" || fail "cannot read ${file##*/}" ;;
  *) cat "$file" >"$HOME/documents.json" || fail "cannot read ${file##*/}" ;;
  esac
  loaded=yes
  terminus "${file##*/} does not load" doc insert "$(path "$target")" "--graph_type=$graph" "--author=coppice" "--message=Initial load" <"$HOME/documents.json"
  rm -f "$HOME/documents.json"
  loaded_files=$((loaded_files + 1))
  progress '.json' '.json.gz'
done
[ -n "${loaded-}" ] || fail "the load holds no *.json or *.json.gz file"
publish
