// The sentences of the Setup view. Strict JSON, so a test can read it without
// running it.

export const words = {
  "en": {
    "title": "Set up a client",
    "lead": "Make a client pull everything through this proxy, without changing a name."
  },
  "zh": {
    "title": "配置客户端",
    "lead": "让客户端的所有拉取都经过本代理，镜像名称无需改动。"
  }
};
