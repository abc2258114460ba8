// Renders the chart's templates where there is no helm: with Go's own templates, which helm is made of, and the functions
// of helm's that the chart calls. What it doesn't have, a template can't call: rendering fails.
//
// It reads {"values", "release", "chart", "templates": {name: text}} from standard input and writes {name: text}.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/template"
)

type input struct {
	Values    map[string]any    `json:"values"`
	Release   map[string]any    `json:"release"`
	Chart     map[string]any    `json:"chart"`
	Templates map[string]string `json:"templates"`
}

func isEmpty(value any) bool {
	truth, _ := template.IsTrue(value)
	return !truth
}

func number(value any) (int64, error) {
	switch value := value.(type) {
	case int64:
		return value, nil
	case int:
		return int64(value), nil
	case float64:
		return int64(value), nil
	case string:
		return strconv.ParseInt(value, 10, 64)
	}
	return 0, fmt.Errorf("%v is no number", value)
}

func functions(all *template.Template) template.FuncMap {
	return template.FuncMap{
		"include": func(name string, data any) (string, error) {
			var text bytes.Buffer
			err := all.ExecuteTemplate(&text, name, data)
			return text.String(), err
		},
		// JSON is YAML.
		"toYaml": func(value any) (string, error) {
			text, err := json.Marshal(value)
			return string(text), err
		},
		"nindent": func(width int, text string) string {
			indent := strings.Repeat(" ", width)
			return "\n" + indent + strings.ReplaceAll(text, "\n", "\n"+indent)
		},
		"quote": func(value any) string { return strconv.Quote(fmt.Sprint(value)) },
		"default": func(otherwise any, value any) any {
			if isEmpty(value) {
				return otherwise
			}
			return value
		},
		"required": func(message string, value any) (any, error) {
			if isEmpty(value) {
				return nil, errors.New(message)
			}
			return value, nil
		},
		"fail":  func(message string) (string, error) { return "", errors.New(message) },
		"lower": strings.ToLower,
		"trunc": func(length int, text string) string {
			if len(text) > length {
				return text[:length]
			}
			return text
		},
		"trimSuffix": func(suffix string, text string) string { return strings.TrimSuffix(text, suffix) },
		"int":        func(value any) (int, error) { one, err := number(value); return int(one), err },
		"add": func(values ...any) (int64, error) {
			sum := int64(0)
			for _, value := range values {
				one, err := number(value)
				if err != nil {
					return 0, err
				}
				sum += one
			}
			return sum, nil
		},
		"div": func(one any, other any) (int64, error) {
			above, err := number(one)
			if err != nil {
				return 0, err
			}
			below, err := number(other)
			if err != nil || below == 0 {
				return 0, errors.New("div: no number to divide by")
			}
			return above / below, nil
		},
	}
}

func run() error {
	var given input
	// Numbers become float64, as helm's do.
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		return err
	}
	all := template.New("chart").Option("missingkey=zero")
	all.Funcs(functions(all))
	for name, text := range given.Templates {
		if _, err := all.New(name).Parse(text); err != nil {
			return err
		}
	}
	data := map[string]any{"Values": given.Values, "Release": given.Release, "Chart": given.Chart}
	rendered := map[string]string{}
	for name := range given.Templates {
		if strings.HasPrefix(name, "_") {
			continue
		}
		var text bytes.Buffer
		if err := all.ExecuteTemplate(&text, name, data); err != nil {
			return err
		}
		rendered[name] = text.String()
	}
	return json.NewEncoder(os.Stdout).Encode(rendered)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
