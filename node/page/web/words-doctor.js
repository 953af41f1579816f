// The sentences of the Doctor view. Strict JSON, so a test can read it without
// running it.

export const words = {
  "en": {
    "title": "Doctor",
    "lead": "What happens on the way to a registry or an image, step by step."
  },
  "zh": {
    "title": "诊断",
    "lead": "逐步检查通往镜像仓库或镜像的每一步。"
  }
};
