// The sentences of the Cluster view. Strict JSON, so a test can read it without
// running it.

export const words = {
  "en": {
    "title": "Cluster",
    "lead": "The members, and which of them holds what."
  },
  "zh": {
    "title": "集群",
    "lead": "集群成员，以及内容保存在哪里。"
  }
};
