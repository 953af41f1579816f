// The sentences of the Setup view. Strict JSON, so a test can read it without
// running it.

export const words = {
  "en": {
    "title": "Set up a client",
    "lead": "Make a client pull everything through this proxy, without changing a name.",
    "client": "Client",
    "registries": "Registries",
    "registries.hint": "Leave this empty for all, or for the usual ones where the client can’t say “all”.",
    "registries.wrong": "Write registries like docker.io, ghcr.io, localhost:5000.",
    "oneLine": "In one line",
    "oneLine.hint": "Run it on the machine with {client}. It shows what it changes, keeps a copy of each file, and changes nothing that is not its own.",
    "dry": "The same without changing anything:",
    "dry.label": "Dry run",
    "command": "Command",
    "byHand": "By hand",
    "merge": "If the file exists already, put this into it; the rest of it stays.",
    "restart": "Then restart",
    "notes": "Good to know",
    "missing": "This node does not write files for {client} yet: it is of an earlier version. The documentation (docs/clients.md) has them.",
    "undo": "To take it back later:",
    "undo.label": "Undo"
  },
  "zh": {
    "title": "配置客户端",
    "lead": "让客户端的所有拉取都经过本代理，镜像名称无需改动。",
    "client": "客户端",
    "registries": "镜像仓库",
    "registries.hint": "留空表示全部；若客户端无法表示“全部”，则为常用的仓库。",
    "registries.wrong": "请这样填写：docker.io, ghcr.io, localhost:5000。",
    "oneLine": "一行命令",
    "oneLine.hint": "在装有 {client} 的机器上运行。它会显示改动、备份每个文件，并且只改动自己的内容。",
    "dry": "只看改动，不实际修改：",
    "dry.label": "试运行",
    "command": "命令",
    "byHand": "手动配置",
    "merge": "如果文件已存在，请将这些内容合并进去，其余部分保持不变。",
    "restart": "然后重启",
    "notes": "须知",
    "missing": "此节点的版本较旧，尚不能生成 {client} 的文件，请参阅文档 docs/clients.md。",
    "undo": "以后如需撤销：",
    "undo.label": "撤销"
  }
};
