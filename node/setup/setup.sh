# The machine's part comes below main: files that are there already stay what they are, and the
# record beside them is the one that "oci-proxy setup" keeps, so either undoes what the other did.

say() { printf '%s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2 && exit 1; }
usage() { say "usage: sh -s -- [-n] [-undo] [-root FOLDER]" "(-n: only show what would change)" && exit "$1"; }

# refuse PATH REASON [TEXT] says why, and what to add by hand. Nothing is changed then.
refuse() {
  refused=yes
  if [ $# -lt 3 ]; then
    say "$1 stays as it is: $2."
  else
    say "$1 stays as it is: $2. Add this by hand:" "" "$3" ""
  fi
}

# difference OLD NEW PATH shows what is to change.
difference() {
  say "--- $3"
  if command -v diff >/dev/null; then
    diff -u "$1" "$2" | sed 1,2d || :
  else
    sed 's/^/+/' "$2"
  fi
}

# unmark takes marked parts out of a text, and puts back the lines that gave way to them. It fails
# if a part has no end.
unmark() {
  awk '{ bare = $0; gsub(/^[ \t]+|[ \t\r]+$/, "", bare) }
    bare == "# >>> oci-proxy setup" { lost = lost || inside; inside = 1; next }
    bare == "# <<< oci-proxy setup" { inside = 0; next }
    inside { if (sub(/^[ \t]*# was: /, "")) print; next }
    { print }
    END { exit inside || lost }' "$1"
}

# blank FILE reports whether there is nothing in it.
blank() { [ -z "$(tr -d ' \t\r\n' <"$1")" ]; }

# linked PATH reports whether it, or a folder on the way to it, is a link. $way is that link.
linked() {
  way=$1
  while [ -n "$way" ]; do
    [ ! -L "$root$way" ] || return 0
    way=${way%/*}
  done
  return 1
}

# inside PATH fails if it may lead out of the root.
inside() {
  if [ -n "$root" ] && linked "$1"; then
    fail "$way is a link, which may lead out of $root: use oci-proxy setup $client -root $root"
  fi
}

# check_record fails if the record holds what setup never puts there, such as links.
check_record() {
  inside "$dir/oci-proxy-setup"
  if [ -n "$(find "$record" ! -type f ! -type d 2>/dev/null)" ]; then
    fail "$record holds links or devices, which setup never makes: look at it, and remove them"
  fi
}

# now PATH puts what is there into $tmp/now; there=yes if there is anything.
now() {
  there=
  : >"$tmp/now"
  inside "$1"
  if [ -e "$root$1" ]; then
    [ -f "$root$1" ] || fail "$1 is not a file"
    cat "$root$1" >"$tmp/now" || fail "$1 can't be read"
    there=yes
  fi
}

# plan_file KIND PATH TEXT [KEY VALUE…] finds out what a file is to hold, and stages it below $tmp/new
# if it is to change. KIND is json, config_path or plain.
plan_file() {
  kind=$1 path=$2 text=$3
  shift 3
  planned="$planned $path"
  case $path in
    */registries.conf.d/oci-proxy.conf)
      others_entries || return 0
      ;;
  esac
  now "$path"
  base=$there
  cp "$tmp/now" "$tmp/base"
  if [ -f "$record/after$path" ] && cmp -s "$tmp/now" "$record/after$path"; then
    base=
    : >"$tmp/base"
    if [ -f "$record/before$path" ]; then
      base=yes
      cat "$record/before$path" >"$tmp/base"
    fi
  fi
  # What the program wrote may be laid out in another way.
  if [ "$kind$base$there" = jsonyesyes ] && merge_json "$tmp/now" "$tmp/want" "$@" 2>/dev/null && cmp -s "$tmp/now" "$tmp/want"; then
    return 0
  fi
  want "$@" || return 0
  if [ "$there" = yes ] && cmp -s "$tmp/now" "$tmp/want"; then
    return 0
  fi
  if [ -f "$record/after$path" ] && [ "$there" = yes ] && ! cmp -s "$tmp/now" "$record/after$path"; then
    refuse "$path" "it was changed since setup wrote it; undo first" "$text"
    return 0
  fi
  difference "$tmp/now" "$tmp/want" "$path"
  stage "$path"
}

# others_entries refuses the file beside registries.conf if other files there name registries: podman
# would put those here in their place, or does not start with files of its first format.
others_entries() {
  entry='\[\[[[:space:]]*["'\'']?registry["'\'']?[[:space:]]*\]\]'
  first='\[[[:space:]]*["'\'']?registries["'\'']?[[:space:]]*[].]'
  key='["'\'']?registr(y|ies)["'\'']?[[:space:]]*[.=]'
  for file in "$root${path%.d/*}" "$root${path%/*}"/*.conf "$root${path%/*}"/.*.conf; do
    file=${file#"$root"}
    [ "$file" != "$path" ] || continue
    now "$file"
    if without_aliases "$tmp/now" | grep -Eq "^[[:space:]]*($entry|$first|$key)"; then
      refuse "$path" "$file has entries for registries already, whose place those here could take, and this script does not read them; oci-proxy setup $client looks at them"
      return 1
    fi
  done
}

# without_aliases prints a file without its table of short names, one of which may be "registry".
without_aliases() {
  awk '/^[ \t]*\[/ { inside = ($0 ~ /^[ \t]*\[[ \t]*["\047]?aliases["\047]?[ \t]*\]/) } !inside { print }' "$1"
}

# want puts what the file is to hold into $tmp/want. It fails if that was refused, or if others
# have put it there.
want() {
  if [ "$base" != yes ] || blank "$tmp/base"; then
    printf '%s\n' "$text" >"$tmp/want"
    return 0
  fi
  case $kind in
    json)
      status=0
      merge_json "$tmp/base" "$tmp/want" "$@" 2>"$tmp/why" || status=$?
      [ $status != 0 ] || return 0
      if [ $status = 3 ]; then
        refuse "$path" "to merge it, python3 or jq must be there, or oci-proxy setup $client" "$text"
      else
        refuse "$path" "$(tail -n 1 "$tmp/why")" "$text"
      fi
      ;;
    config_path)
      if grep -Eq '^[[:space:]]*config_path[[:space:]]*=[[:space:]]*["'\'']/etc/containerd/certs\.d[:"'\'']' "$tmp/now"; then
        return 1
      fi
      refuse "$path" "this script merges no TOML; oci-proxy setup $client does. In version 3 of the file the table is [plugins.\"io.containerd.cri.v1.images\".registry], in version 1 [plugins.cri.registry]. Leave a version that is there" "$text"
      ;;
    *)
      printf '%s\n' "$text" >"$tmp/want"
      ! cmp -s "$tmp/base" "$tmp/want" || return 1
      refuse "$path" "somebody else has written it, and this script merges no such files; oci-proxy setup $client does" "$text"
      ;;
  esac
  return 1
}

# stage PATH keeps what is in $tmp/want, $tmp/base and $tmp/now for the writing.
stage() {
  mkdir -p "$tmp/new${1%/*}" "$tmp/old${1%/*}" "$tmp/was${1%/*}"
  cp "$tmp/want" "$tmp/new$1"
  [ "$there" != yes ] || cp "$tmp/now" "$tmp/was$1"
  [ "$base" != yes ] || cp "$tmp/base" "$tmp/old$1"
  changes=$((changes + 1))
}

# undo takes back what the record says.
undo() {
  if [ ! -d "$record/after" ]; then
    say "setup has written nothing for $client here: nothing to undo"
    return 0
  fi
  paths=$(cd "$record/after" && find . -type f | sed 's/^\.//' | sort)
  for path in $paths; do
    now "$path"
    [ "$there" = yes ] || continue
    reverted
    if [ "$then" = yes ]; then
      ! cmp -s "$tmp/now" "$tmp/want" || continue
      difference "$tmp/now" "$tmp/want" "$path"
      base=
      stage "$path"
    else
      difference "$tmp/now" /dev/null "$path"
      gone="$gone $path"
      changes=$((changes + 1))
    fi
  done
  [ -z "$refused" ] || fail "nothing has been changed"
  if [ -n "$dry" ]; then
    say "nothing has been changed (-n): $changes files would be"
    return 0
  fi
  take_back
  say "$changes files are without setup's part again"
  [ -z "$restart" ] || say "then run: $restart"
}

# reverted puts what $path is to hold into $tmp/want; then=yes unless it is to go.
reverted() {
  then=yes
  old=$record/before$path
  [ -f "$old" ] || old=/dev/null
  if cmp -s "$tmp/now" "$record/after$path"; then
    [ "$old" != /dev/null ] || then=
    cat "$old" >"$tmp/want"
    return 0
  fi
  case $path in
    *.json)
      unmerge_json "$tmp/now" "$old" "$record/after$path" "$tmp/want" 2>/dev/null ||
        leave "it has changed, and python3 or jq would have to read it. Take away yourself what $record/after$path has more than $old"
      ;;
    *) unmarked ;;
  esac
}

# leave REASON refuses to change $path.
leave() {
  refuse "$path" "$1"
  cat "$tmp/now" >"$tmp/want"
}

# unmarked puts $path without setup's part into $tmp/want. It refuses where more would be left than
# was there before, since that may need the part: only the program can tell.
unmarked() {
  if ! unmark "$tmp/now" >"$tmp/want"; then
    leave "the line '# <<< oci-proxy setup' that ends setup's part is gone. Take that part away yourself"
  elif same "$tmp/want" "$tmp/now"; then
    cat "$tmp/now" >"$tmp/want"
  elif [ "$old" = /dev/null ] && blank "$tmp/want"; then
    then=
  elif [ "$old" != /dev/null ] && same "$tmp/want" "$old"; then
    cat "$old" >"$tmp/want"
  else
    leave "others have changed it since; oci-proxy setup $client -undo looks at what would be left"
  fi
}

# same A B reports whether two files are the same but for empty lines at their end.
same() { [ "$(cat "$1")" = "$(cat "$2")" ]; }

main() {
  dry='' undo='' root='' planned='' refused='' gone='' changes=0 writing='' paths='' placed='' kept='' locked=''
  while [ $# -gt 0 ]; do
    case $1 in
      -n) dry=yes ;;
      -undo | --undo) undo=yes ;;
      -root | --root)
        [ -n "${2:-}" ] || usage 2 >&2
        root=${2%/}
        shift
        ;;
      -h | -help | --help) usage 0 ;;
      *) usage 2 >&2 ;;
    esac
    shift
  done
  record=$root$dir/oci-proxy-setup
  tmp=$(mktemp -d) || fail "there is no room for temporary files"
  trap ended EXIT
  trap 'exit 1' HUP INT TERM
  mkdir "$tmp/new" "$tmp/old" "$tmp/was"
  [ -n "$dry" ] || lock
  check_record
  [ ! -d "$record" ] || kept=yes
  if [ -n "$undo" ]; then
    undo
    return
  fi
  plan
  if [ -d "$record/after" ]; then
    for path in $(cd "$record/after" && find . -type f | sed 's/^\.//'); do
      case " $planned " in
        *" $path "*) ;;
        *) refuse "$path" "an earlier setup with other options wrote it; undo first" ;;
      esac
    done
  fi
  [ -z "$refused" ] || fail "nothing has been changed"
  if [ "$changes" = 0 ]; then
    say "$client is set up for $endpoint already: nothing to change"
    return
  fi
  if [ -n "$dry" ]; then
    say "nothing has been changed (-n): $changes files would be"
    return
  fi
  write
  say "$changes files written; $record has them as they were, and sh -s -- -undo puts them back"
  notes
  [ -z "$restart" ] || say "then run: $restart"
}

# In braces nothing runs before the last one is there, and nothing after it does.
{
  main "$@"
  exit
}
