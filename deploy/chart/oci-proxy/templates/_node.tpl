{{/* The pod of a node of the mesh. */}}
{{- define "oci-proxy.template" -}}
{{- $daemon := eq .Values.kind "DaemonSet" -}}
{{- $hostPath := and $daemon .Values.daemonSet.hostPath -}}
metadata:
  labels:
    {{- include "oci-proxy.nodes" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ toYaml .Values.config | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "oci-proxy.pod" . | nindent 2 }}
  {{- with .Values.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- if not $daemon }}
  topologySpreadConstraints:
    {{- with .Values.topologySpreadConstraints }}
    {{- toYaml . | nindent 4 }}
    {{- else }}
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{ include "oci-proxy.nodes" . | nindent 10 }}
    {{- end }}
  {{- end }}
  terminationGracePeriodSeconds: {{ include "oci-proxy.grace" . }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- if $hostPath }}
  initContainers:
    # The kubelet makes the folder for root, and fsGroup does not change a folder of the machine.
    - name: own
      image: {{ include "oci-proxy.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [own, /var/lib/oci-proxy, "65532"]
      securityContext:
        runAsNonRoot: false
        runAsUser: 0
        runAsGroup: 0
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL], add: [CHOWN]}
      volumeMounts:
        - {name: cache, mountPath: /var/lib/oci-proxy}
  {{- end }}
  containers:
    - name: oci-proxy
      image: {{ include "oci-proxy.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      env:
        - {name: OCI_PROXY_CONFIG, value: /etc/oci-proxy/config.yaml}
        - name: OCI_PROXY_CLUSTER__NAME
          valueFrom: {fieldRef: {fieldPath: {{ $daemon | ternary "spec.nodeName" "metadata.name" }}}}
        - name: OCI_PROXY_CLUSTER__ADVERTISE
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        - {name: OCI_PROXY_CLUSTER__SECRET_FILE, value: /run/oci-proxy/secret}
        {{- if not (include "oci-proxy.config" (list . "cluster" "seeds")) }}
        - {name: OCI_PROXY_CLUSTER__SEEDS, value: "{{ include "oci-proxy.fullname" . }}-nodes:7946"}
        {{- end }}
        {{- if not (include "oci-proxy.config" (list . "cluster" "zone")) }}
        # Since 1.35 Kubernetes gives pods this label of their machine. Before, it is empty: no zone.
        - name: OCI_PROXY_CLUSTER__ZONE
          valueFrom: {fieldRef: {fieldPath: "metadata.labels['topology.kubernetes.io/zone']"}}
        {{- end }}
        {{- if not (include "oci-proxy.config" (list . "defaults" "cache_dir")) }}
        - {name: OCI_PROXY_DEFAULTS__CACHE_DIR, value: /var/lib/oci-proxy/cache}
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: http
          containerPort: {{ .Values.config.port }}
          {{- if $daemon }}
          hostPort: {{ .Values.daemonSet.hostPort }}
          {{- with .Values.daemonSet.hostIP }}
          hostIP: {{ . }}
          {{- end }}
          {{- end }}
        - {name: gossip, containerPort: 7946, protocol: TCP}
        - {name: gossip-udp, containerPort: 7946, protocol: UDP}
        - {name: peers, containerPort: 7947, protocol: TCP}
      startupProbe:
        {{- include "oci-proxy.probe" (list . "/_/health") | nindent 8 }}
        periodSeconds: 2
        failureThreshold: 90
      livenessProbe:
        {{- include "oci-proxy.probe" (list . "/_/health") | nindent 8 }}
        periodSeconds: 20
        failureThreshold: 6
      readinessProbe:
        {{- include "oci-proxy.probe" (list . "/_/ready") | nindent 8 }}
        periodSeconds: 5
        failureThreshold: 2
      lifecycle:
        # SIGTERM drains, and an idle node then ends at once. The pause is for the Service, which hears
        # of it at the same moment.
        preStop: {sleep: {seconds: 5}}
      {{- with .Values.resources }}
      resources: {{ toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- include "oci-proxy.contained" . | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/oci-proxy, readOnly: true}
        - {name: secret, mountPath: /run/oci-proxy, readOnly: true}
        - {name: cache, mountPath: /var/lib/oci-proxy}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      secret: {secretName: {{ include "oci-proxy.fullname" . }}-config, defaultMode: 0440}
    - name: secret
      secret:
        secretName: {{ include "oci-proxy.clusterSecret" . }}
        defaultMode: 0440
        items: [{key: {{ .Values.clusterSecret.key }}, path: secret}]
    {{- if $hostPath }}
    - name: cache
      hostPath: {path: {{ .Values.daemonSet.hostPath }}, type: DirectoryOrCreate}
    {{- else if $daemon }}
    - {name: cache, emptyDir: {}}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
