package docs_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// A composed file is what the compose files here use of the format, so that a misspelt member fails.
type composed struct {
	Built    any                 `yaml:"x-built"`
	Upcall   any                 `yaml:"x-upcall"`
	Name     string              `yaml:"name"`
	Services map[string]*service `yaml:"services"`
	Secrets  map[string]source   `yaml:"secrets"`
	Configs  map[string]source   `yaml:"configs"`
	Volumes  map[string]any      `yaml:"volumes"`
}

type source struct {
	File    string `yaml:"file"`
	Content string `yaml:"content"`
}

type service struct {
	Build       string                       `yaml:"build"`
	Image       string                       `yaml:"image"`
	PullPolicy  string                       `yaml:"pull_policy"`
	ReadOnly    bool                         `yaml:"read_only"`
	CapDrop     []string                     `yaml:"cap_drop"`
	SecurityOpt []string                     `yaml:"security_opt"`
	Profiles    []string                     `yaml:"profiles"`
	Entrypoint  []string                     `yaml:"entrypoint"`
	Command     []string                     `yaml:"command"`
	Environment map[string]string            `yaml:"environment"`
	Secrets     []string                     `yaml:"secrets"`
	Configs     []map[string]string          `yaml:"configs"`
	Volumes     []string                     `yaml:"volumes"`
	Tmpfs       []string                     `yaml:"tmpfs"`
	Ports       []string                     `yaml:"ports"`
	NetworkMode string                       `yaml:"network_mode"`
	Networks    map[string]any               `yaml:"networks"`
	DependsOn   map[string]map[string]string `yaml:"depends_on"`
	Healthcheck any                          `yaml:"healthcheck"`
}

// TestPortsHold: a port that one command alone has makes the next one stop the receiver and the emulator, and start them with
// other ports. If those are taken, they stay down.
func TestPortsHold(t *testing.T) {
	t.Parallel()
	alone := regexp.MustCompile(`_(?:PORT|URL)=\S+ docker compose`)
	texts := pages(t)
	for _, name := range []string{"../docker-compose.yml", "../compose.include.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	for path, text := range texts {
		if found := alone.FindString(text); found != "" {
			t.Errorf("%s has %s: say that it belongs in .env", path, found)
		}
	}
}

// TestComposeFiles holds that the compose files name only services, secrets, files and ports that there are. Where there is
// Docker, Compose itself reads them too.
func TestComposeFiles(t *testing.T) {
	t.Parallel()
	host := regexp.MustCompile(`(?:http|postgres)://(?:upcall@)?([a-z-]+)[:/]`)
	for _, name := range []string{"docker-compose.yml", "compose.include.yaml"} {
		text, err := os.ReadFile("../" + name)
		if err != nil {
			t.Fatal(err)
		}
		loader, err := yaml.NewLoader(bytes.NewReader(text), yaml.WithKnownFields(), yaml.WithUniqueKeys())
		if err != nil {
			t.Fatal(err)
		}
		var file composed
		if err := loader.Load(&file); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		checkBuilds(t, name, file)
		for _, one := range file.Secrets {
			if _, err := os.Stat(filepath.Join("..", one.File)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for id, s := range file.Services {
			for other := range s.DependsOn {
				if file.Services[other] == nil {
					t.Errorf("%s: %s waits for %s, which is no service", name, id, other)
				}
			}
			if other, ok := strings.CutPrefix(s.NetworkMode, "service:"); ok && file.Services[other] == nil {
				t.Errorf("%s: %s is on the network of %s, which is no service", name, id, other)
			}
			for _, secret := range s.Secrets {
				if file.Secrets[secret].File == "" {
					t.Errorf("%s: %s has the secret %s, which is none", name, id, secret)
				}
			}
			for _, config := range s.Configs {
				if c := file.Configs[config["source"]]; c.File == "" && c.Content == "" {
					t.Errorf("%s: %s has the configuration %s, which is none", name, id, config["source"])
				}
			}
			for variable, value := range s.Environment {
				if path, ok := strings.CutPrefix(value, "/run/secrets/"); ok && !slices.Contains(s.Secrets, path) {
					t.Errorf("%s: %s reads the secret %s, which it does not have", name, id, path)
				}
				for _, found := range host.FindAllStringSubmatch(value, -1) {
					if file.Services[found[1]] == nil {
						t.Errorf("%s: %s of %s names the host %s, which is no service", name, variable, id, found[1])
					}
				}
			}
		}
		if exec.CommandContext(t.Context(), "docker", "compose", "version").Run() != nil {
			continue
		}
		config := exec.CommandContext(t.Context(), "docker", "compose", "--file", "../"+name, "config", "--quiet")
		config.Env = append(os.Environ(), "OSSEMU_PORT=9100")
		if out, err := config.CombinedOutput(); err != nil || len(out) != 0 {
			t.Errorf("docker compose config of %s: %v: %s", name, err, out)
		}
	}
}

// checkBuilds holds that one service builds the image, and that the others use that and none from elsewhere. Of two that build it,
// Compose takes one for outdated: the next command stops what runs to start it again.
func checkBuilds(t *testing.T, name string, file composed) {
	t.Helper()
	builds := 0
	for id, s := range file.Services {
		if s.Build != "" {
			builds++
		} else if s.Image == "upcall:dev" && s.PullPolicy != "never" {
			t.Errorf("%s: %s may pull its image", name, id)
		}
	}
	if builds != 1 {
		t.Errorf("%s: %d services build the image", name, builds)
	}
}
