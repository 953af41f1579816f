package chart

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// resources are where the API server has the kinds that the chart makes.
var resources = map[string]string{
	"DaemonSet": "apis/apps/v1/namespaces/%s/daemonsets", "StatefulSet": "apis/apps/v1/namespaces/%s/statefulsets",
	"Secret": "api/v1/namespaces/%s/secrets", "Service": "api/v1/namespaces/%s/services",
	"ConfigMap": "api/v1/namespaces/%s/configmaps", "ServiceAccount": "api/v1/namespaces/%s/serviceaccounts",
	"PodDisruptionBudget": "apis/policy/v1/namespaces/%s/poddisruptionbudgets",
	"NetworkPolicy":       "apis/networking.k8s.io/v1/namespaces/%s/networkpolicies",
	"ServiceMonitor":      "apis/monitoring.coreos.com/v1/namespaces/%s/servicemonitors",
	"PrometheusRule":      "apis/monitoring.coreos.com/v1/namespaces/%s/prometheusrules",
}

// A server is an API server, with the login there.
type server struct {
	address, token string
	client         http.Client
}

// serverAt returns the server at an address. ca is its certificate, as PEM.
func serverAt(address, token string, ca []byte) (*server, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("the API server's certificate is no PEM")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	return &server{address, token, http.Client{Transport: transport}}, nil
}

// tryAll makes the server validate all objects without keeping one.
func (s *server) tryAll(ctx context.Context, all []document) error {
	var wrong []error
	for _, d := range all {
		if err := s.try(ctx, d); err != nil {
			wrong = append(wrong, fmt.Errorf("%s %s: %w", d.Kind, d.Name, err))
		}
	}
	return errors.Join(wrong...)
}

// try makes the server validate one object.
func (s *server) try(ctx context.Context, d document) error {
	url := s.address + "/" + fmt.Sprintf(resources[d.Kind], d.Namespace) + "?dryRun=All&fieldValidation=Strict"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(d.json))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.token)
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil || resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	return nil
}
