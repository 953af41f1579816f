# How the script merges JSON, with python3 or jq. Others' keys stay. setup.sh comes behind it.

# python imports nothing from the folder in which this runs (-I), which others may write to.
python() { command python3 -I "$@"; }

# merge_json OLD NEW KEY VALUE… puts values at the front of lists in OLD, into NEW. It leaves a text
# that has them all as it is.
merge_json() {
  if command -v python3 >/dev/null && python -c '' 2>/dev/null; then
    python -c "$merge_py" "$@"
  elif command -v jq >/dev/null; then
    merge_jq "$@"
  else
    return 3
  fi
}

merge_py='
import json, re, sys
def once(pairs):
    if len(dict(pairs)) != len(pairs):
        sys.exit("a key is there twice")
    return dict(pairs)
old, new, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
text = open(old, encoding="utf-8", newline="").read()
try:
    data = json.loads(text, object_pairs_hook=once) if text.strip() else {}
except ValueError as e:
    sys.exit("it is not valid JSON: %s" % e)
if not isinstance(data, dict):
    sys.exit("it is not an object")
changed = False
for key, value in zip(rest[::2], rest[1::2]):
    values = data.get(key, [])
    if not isinstance(values, list):
        sys.exit(key + " is not a list")
    if not any(str(v).rstrip("/") == value for v in values):
        data[key], changed = [value] + values, True
if changed:
    indent = re.search(r"\n([ \t]+)\S", text)
    end = "\r\n" if "\r\n" in text else "\n"
    text = json.dumps(data, indent=indent.group(1) if indent else 2, ensure_ascii=False).replace("\n", end) + end
open(new, "w", encoding="utf-8", newline="").write(text)
'

merge_jq() {
  jq_new=$2
  cp "$1" "$jq_new"
  cp "$1" "$jq_new.1"
  shift 2
  while [ $# -gt 0 ]; do
    jq -s --arg k "$1" --arg v "$2" 'if length != 1 or (.[0] | type != "object") then error("it is not one object") else .[0] end |
      if any((.[$k] // [])[]; rtrimstr("/") == $v) then . else .[$k] = [$v] + (.[$k] // []) end' "$jq_new.1" >"$jq_new.2" 2>/dev/null || {
      echo "it is not valid JSON, or $1 is not a list" >&2
      return 1
    }
    mv "$jq_new.2" "$jq_new.1"
    shift 2
  done
  if [ "$(jq -cS . "$jq_new.1")" != "$(jq -cS . "$jq_new" 2>/dev/null)" ]; then
    mv "$jq_new.1" "$jq_new"
  fi
}

# unmerge_json NOW BEFORE AFTER NEW takes from the lists in NOW what AFTER has more than BEFORE, into NEW. It
# leaves a text that has none of that as it is.
unmerge_json() {
  if command -v python3 >/dev/null && python -c '' 2>/dev/null; then
    python -c "$unmerge_py" "$@"
  elif command -v jq >/dev/null; then
    jq -n --slurpfile now "$1" --slurpfile old "$2" --slurpfile wrote "$3" '($old[0] // {}) as $o | $wrote[0] as $w |
      reduce ($w | keys[]) as $k ($now[0]; if ($w[$k] | type) != "array" or (.[$k] | type) != "array" then . else
        .[$k] -= ($w[$k] - ($o[$k] // [])) | if .[$k] == [] and ($o | has($k) | not) then del(.[$k]) else . end end)' >"$4" || return 1
    if [ "$(jq -cS . "$1")" = "$(jq -cS . "$4")" ]; then
      cat "$1" >"$4"
    fi
  else
    return 3
  fi
}

unmerge_py='
import json, re, sys
def read(name):
    text = open(name, encoding="utf-8", newline="").read()
    return text, json.loads(text) if text.strip() else {}
(text, now), (_, old), (_, wrote) = map(read, sys.argv[1:4])
changed = False
for key, values in wrote.items():
    if isinstance(values, list) and isinstance(now.get(key), list):
        ours = [v for v in values if v not in old.get(key, [])]
        left = [v for v in now[key] if v not in ours]
        changed = changed or left != now[key]
        now[key] = left
        if not left and key not in old:
            del now[key]
if changed:
    indent = re.search(r"\n([ \t]+)\S", text)
    end = "\r\n" if "\r\n" in text else "\n"
    text = json.dumps(now, indent=indent.group(1) if indent else 2, ensure_ascii=False).replace("\n", end) + end
open(sys.argv[4], "w", encoding="utf-8", newline="").write(text)
'

