// The sentences of the Cache view. Strict JSON, so a test can read it without
// running it.

export const words = {
  "en": {
    "title": "Cache",
    "lead": "The images that the cluster holds."
  },
  "zh": {
    "title": "缓存",
    "lead": "集群中保存的镜像。"
  }
};
