// The page’s sentences. The object below is strict JSON, so a test can read it
// without running it. fill replaces {name} by a value.

export const sentences = {
  "en": {
    "title": "OCI-Proxy: pull command",
    "lead": "Pull container images through this proxy’s cache.",
    "language": "Language",
    "image": "Image",
    "image.hint": "An image name or a whole pull command, from any registry.",
    "examples": "Try",
    "tool": "Tool",
    "proxy": "Proxy address",
    "proxy.reset": "Reset",
    "command": "Command",
    "command.empty": "The command will appear here.",
    "copy": "Copy",
    "copied": "Copied",
    "copy.failed": "The browser does not allow copying. The command is selected: press Ctrl+C or ⌘C to copy it.",
    "explain": "Pulls the image through the proxy, tags it with its usual name, and removes the proxied name.",
    "footer": "This node",
    "stats": "Statistics",
    "health": "Health",
    "error.upper": "“{at}” has capital letters; image names are lower case. Did you mean {fix}?",
    "error.emptyPart": "The name has two slashes in a row, or a slash at the start or end.",
    "error.character": "The character “{at}” is not allowed in an image name.",
    "error.part": "“{at}” is not a valid part of a name: use lower-case letters and digits, joined by “.”, “_”, “__” or dashes.",
    "error.tag": "“{at}” is not a valid tag: use at most 128 letters, digits, “_”, “.” and “-”, and don’t start with “.” or “-”.",
    "error.tagEmpty": "The tag after the colon is missing.",
    "error.digest": "“{at}” is not a valid digest: write sha256: and 64 lower-case hex digits.",
    "error.registry": "“{at}” is not a valid registry address.",
    "error.registry6": "{at} is an IPv6 address, which can’t be part of an image name. Give the registry an alias in the proxy’s config, and use that.",
    "error.onlyRegistry": "“{at}” is only an address; the image name is missing.",
    "error.long": "This is too long: a name may have at most 255 characters, including the proxy’s address.",
    "error.imageID": "This is an image ID, not a name. A digest is written name@sha256:…",
    "error.flag": "The option “{at}” is not supported here; only --platform, -q, --quiet, -a and --all-tags are.",
    "error.platform": "“{at}” is not a valid platform. Examples: linux/arm64, linux/arm/v7.",
    "error.words": "One image at a time, please: remove “{at}”.",
    "error.noName": "The image name is missing.",
    "error.notPull": "“{at}” is not a pull command.",
    "error.allTagsName": "With {at}, the name must not have a tag or a digest.",
    "error.allTagsTool": "{tool} has no option {at}.",
    "error.proxy": "“{at}” is not a valid address. Examples: proxy.example.com, 10.0.0.5:8080.",
    "error.proxy6": "An IPv6 address can’t be part of an image name; use a host name.",
    "error.proxyEmpty": "The proxy’s address is missing.",
    "error.proxyShort": "A host name without a dot needs a port, or clients take it for a user on Docker Hub: {fix}",
    "note.digest": "{tool} cannot tag an image with a digest, so the image keeps the proxied name.",
    "note.digestTag": "The digest decides what is pulled; “{tag}” is only its tag on this machine.",
    "note.allTags": "This pulls all tags; the images keep their proxied names.",
    "note.port": "A path can’t contain a port, so {registry} is written as {path}.",
    "note.default": "On this proxy, a name without a registry means {registry}. For Docker Hub, write {fix}.",
    "note.podman": "Podman stores the short name under localhost/. If you need the full name, paste {fix}.",
    "note.first": "Only the first command is used.",
    "note.http.docker": "{proxy} uses plain HTTP: add it to insecure-registries in Docker’s daemon.json.",
    "note.http.podman": "{proxy} uses plain HTTP: set insecure = true for it in Podman’s registries.conf.",
    "note.http.nerdctl": "{proxy} uses plain HTTP: give nerdctl --insecure-registry, or a hosts.toml for it."
  },
  "zh": {
    "title": "OCI-Proxy：拉取命令",
    "lead": "通过本代理的缓存拉取容器镜像。",
    "language": "语言",
    "image": "镜像",
    "image.hint": "粘贴镜像名称或完整的拉取命令，任意镜像仓库均可。",
    "examples": "试试",
    "tool": "工具",
    "proxy": "代理地址",
    "proxy.reset": "还原",
    "command": "命令",
    "command.empty": "命令将显示在这里。",
    "copy": "复制",
    "copied": "已复制",
    "copy.failed": "浏览器不允许自动复制。命令已选中，请按 Ctrl+C 或 ⌘C。",
    "explain": "先经代理拉取镜像，再打上原来的名称，最后删除带代理地址的名称。",
    "footer": "本节点",
    "stats": "统计数据",
    "health": "运行状态",
    "error.upper": "“{at}”含有大写字母，而镜像名称只能用小写。是否想输入 {fix}？",
    "error.emptyPart": "两个斜杠之间没有内容，或者首尾多了一个斜杠。",
    "error.character": "镜像名称中不能出现字符“{at}”。",
    "error.part": "名称中的“{at}”不合规范：只能使用小写字母和数字，中间可用“.”、“_”、“__”或连字符连接。",
    "error.tag": "标签“{at}”不合规范：最多 128 个字符，只能使用字母、数字、“_”、“.”和“-”，且不能以“.”或“-”开头。",
    "error.tagEmpty": "冒号后面缺少标签。",
    "error.digest": "摘要“{at}”不合规范：应为 sha256: 加 64 位小写十六进制数字。",
    "error.registry": "“{at}”不是有效的镜像仓库地址。",
    "error.registry6": "{at} 是 IPv6 地址，不能写在镜像名称中。请在代理的配置中为该仓库设置别名 (alias)，并使用该别名。",
    "error.onlyRegistry": "“{at}”只是一个地址，还缺少镜像名称。",
    "error.long": "内容过长：名称连同代理地址最多 255 个字符。",
    "error.imageID": "这是镜像 ID，不是名称。摘要应写成 name@sha256:…",
    "error.flag": "此处不支持选项“{at}”，仅支持 --platform、-q、--quiet、-a 和 --all-tags。",
    "error.platform": "“{at}”不是有效的平台，正确的写法如 linux/arm64 或 linux/arm/v7。",
    "error.words": "每次只能处理一个镜像，“{at}”是多余的。",
    "error.noName": "缺少镜像名称。",
    "error.notPull": "“{at}”不是拉取命令。",
    "error.allTagsName": "使用 {at} 时，名称不能带标签或摘要。",
    "error.allTagsTool": "{tool} 没有 {at} 选项。",
    "error.proxy": "“{at}”不是有效的地址，正确的写法如 proxy.example.com 或 10.0.0.5:8080。",
    "error.proxy6": "IPv6 地址不能写在镜像名称之前，请使用主机名。",
    "error.proxyEmpty": "缺少代理地址。",
    "error.proxyShort": "不含点号的主机名必须带上端口，否则会被当成 Docker Hub 的用户名：{fix}",
    "note.digest": "{tool} 不能把摘要用作标签，因此镜像保留带代理地址的名称。",
    "note.digestTag": "实际拉取的内容由摘要决定，“{tag}”只是它在本机上的标签。",
    "note.allTags": "将拉取全部标签，镜像保留带代理地址的名称。",
    "note.port": "路径中不能包含端口，因此 {registry} 写作 {path}。",
    "note.default": "在本代理中，不带仓库地址的名称来自 {registry}。如需 Docker Hub 的镜像，请写 {fix}。",
    "note.podman": "Podman 会把短名称存放在 localhost/ 之下。如需使用完整名称，请粘贴 {fix}。",
    "note.first": "仅采用了第一条命令。",
    "note.http.docker": "{proxy} 使用明文 HTTP：请将其加入 Docker 的 daemon.json 中的 insecure-registries。",
    "note.http.podman": "{proxy} 使用明文 HTTP：请在 registries.conf 中为其设置 insecure = true。",
    "note.http.nerdctl": "{proxy} 使用明文 HTTP：nerdctl 需要加上 --insecure-registry，或为其配置 hosts.toml。"
  }
};

// languages maps each language to its tag for <html lang>.
export const languages = { en: "en", zh: "zh-CN" };

// known returns the language that a tag such as "zh-TW" stands for, or "".
export function known(tag) {
  const language = String(tag ?? "").toLowerCase().split("-")[0];
  return Object.hasOwn(languages, language) ? language : "";
}

// fill returns the key’s sentence with the values filled in, as plain text.
export function fill(language, key, values = {}) {
  const sentence = sentences[language][key] ?? key;
  return sentence.replace(/\{([a-zA-Z]+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? values[name] : whole));
}
