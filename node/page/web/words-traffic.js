// The sentences of the Traffic view. Strict JSON, so a test can read it without
// running it.

export const words = {
  "en": {
    "title": "Traffic",
    "lead": "Where the bytes come from, and how the registries do."
  },
  "zh": {
    "title": "流量",
    "lead": "数据来自何处，各镜像仓库状况如何。"
  }
};
