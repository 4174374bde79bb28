package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"go.yaml.in/yaml/v4"

	"upcall/internal/fault"
	"upcall/internal/webhook"
)

const (
	// maxFile is the largest file of endpoints in bytes.
	maxFile = 1 << 20
	// keepDeclared is for how long a secret that a file replaces still signs.
	keepDeclared = 24 * time.Hour
)

// ErrFile says that a file does not declare endpoints.
var ErrFile = errors.New("not a file of endpoints")

// A Declared is an endpoint in a file.
type Declared struct {
	Settings
	Secret webhook.Secret
	From   Start // only if it is new
}

// inFile is an endpoint as the file has it.
type inFile struct {
	Name        string            `yaml:"name"`
	URL         string            `yaml:"url"`
	On          []webhook.Kind    `yaml:"on"`
	Buckets     []string          `yaml:"buckets"`
	KeyPrefixes []string          `yaml:"key_prefixes"`
	KeyGlobs    []string          `yaml:"key_globs"`
	MimeTypes   []string          `yaml:"mime_types"`
	Vars        map[string]string `yaml:"vars"`
	MaxInFlight int               `yaml:"max_in_flight"`
	Headers     map[string]string `yaml:"headers"`
	SecretFile  string            `yaml:"secret_file"`
	From        string            `yaml:"from"`
}

// ParseFile reads a file that declares endpoints. readSecret returns the text in a file. The
// error has all mistakes in what can be read.
func ParseFile(data []byte, rules Rules, readSecret func(path string) (string, error)) ([]Declared, error) {
	if len(data) > maxFile {
		return nil, fault.New(ErrFile, "", "is it the right file?", "it is larger than %d bytes", maxFile)
	}
	var content struct {
		Hooks []inFile `yaml:"hooks"`
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithKnownFields(), yaml.WithUniqueKeys())
	if err == nil {
		err = loader.Load(&content)
	}
	if err == nil || errors.Is(err, io.EOF) {
		if len(content.Hooks) == 0 {
			return nil, fault.New(ErrFile, "", "write hooks: and a list of endpoints below it", "it declares no endpoint")
		}
		if err = loader.Load(new(yaml.Node)); errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			err = errors.New("it holds a second document; keep all endpoints in one")
		}
	}
	if err != nil {
		return nil, fault.New(ErrFile, "", "", "%s", fault.Line(err.Error()))
	}
	var faults fault.List
	var all []Declared
	seen := make(map[string]bool)
	for i, one := range content.Hooks {
		d, err := one.declared(rules, readSecret)
		if one.Name != "" && seen[one.Name] {
			err = fault.Join(err, fault.New(ErrExists, "name", "leave one out", "%s is declared twice", fault.Quote(one.Name)))
		}
		seen[one.Name] = true
		faults.Add(fault.Prefix(fmt.Sprintf("hooks[%d].", i), err))
		all = append(all, d)
	}
	return all, faults.Err()
}

func (f inFile) declared(rules Rules, readSecret func(string) (string, error)) (Declared, error) {
	d := Declared{Settings: Settings{
		Name: f.Name, URL: f.URL, MaxInFlight: f.MaxInFlight, Headers: f.Headers,
		Filter: Filter{On: f.On, Buckets: f.Buckets, KeyPrefixes: f.KeyPrefixes, KeyGlobs: f.KeyGlobs, MimeTypes: f.MimeTypes, Vars: f.Vars},
	}}
	var faults fault.List
	if f.Name == "" {
		faults.AddNew(ErrName, "name", "give one", "it is missing; endpoints in a file are known by their names")
	}
	faults.Add(d.Settings.Check(rules))
	var err error
	d.From, err = ParseStart(f.From)
	faults.Add(fault.In("from", err))
	if f.SecretFile == "" {
		faults.AddNew(webhook.ErrSecret, "secret_file", "name a file with whsec_ and Base64 of 24 to 64 random bytes", "it is missing")
		return d, faults.Err()
	}
	text, err := readSecret(f.SecretFile)
	if err == nil {
		d.Secret, err = webhook.ParseSecret(text)
	}
	faults.Add(fault.In("secret_file", err))
	return d, faults.Err()
}

// Declare makes the endpoints that are not there, and changes those that are different. It
// changes nothing when it is called again. Endpoints that are not declared stay as they are, and
// so does a pause. Unlike Add, it does not wait for callbacks that are being answered.
func (e *Endpoints) Declare(ctx context.Context, declared []Declared) error {
	for _, d := range declared {
		if err := e.declare(ctx, d); err != nil {
			return fmt.Errorf("declare endpoint %s: %w", d.Name, err)
		}
	}
	return nil
}

func (e *Endpoints) declare(ctx context.Context, d Declared) error {
	there, err := e.Get(ctx, d.Name)
	if errors.Is(err, ErrNotFound) {
		_, _, err = e.add(ctx, d.Settings, d.Secret, d.From)
		if !errors.Is(err, ErrExists) {
			return err
		}
		there, err = e.Get(ctx, d.Name) // another receiver was quicker
	}
	if err != nil {
		return err
	}
	if want := d.Settings.withDefaults(); !reflect.DeepEqual(there.Settings, want) {
		_, err := e.change(ctx, d.Name, "endpoint was changed by the file", func(changed *Endpoint) error {
			changed.Settings = want
			return want.Check(e.config.Rules)
		})
		if err != nil {
			return err
		}
	}
	if there.secret.Reveal() != d.Secret.Reveal() {
		_, _, err = e.Rotate(ctx, d.Name, d.Secret, keepDeclared)
	}
	return err
}
