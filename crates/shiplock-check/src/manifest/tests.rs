//! What is read from text, in all the shapes that people and tools write.

use super::*;

#[derive(Debug, Default, PartialEq)]
struct Seen {
    objects: Vec<String>,
    troubles: Vec<String>,
    others: usize,
}

impl Sink for Seen {
    fn object(&mut self, object: Object<'_>) {
        let Object { api_version, kind, namespace, name, line } = object;
        self.objects.push(format!("{line} {api_version} {kind} {namespace}/{name}"));
    }
    fn trouble(&mut self, trouble: Trouble) {
        let kind = match trouble.kind {
            TroubleKind::Syntax(_) => "syntax".to_owned(),
            TroubleKind::Shape(_) => "shape".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        };
        self.troubles.push(format!("{} {kind}", trouble.line));
    }
    fn other(&mut self) {
        self.others += 1;
    }
}

fn seen(text: &str) -> Seen {
    let mut seen = Seen::default();
    read(text.as_bytes(), &mut seen);
    seen
}

const INGRESS: &str = "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata:\n  name: a\n  namespace: n\n";

#[test]
fn objects_are_found_in_every_shape_that_yaml_has() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("plain", INGRESS, &["1 extensions/v1beta1 Ingress n/a"]),
        (
            "a name that the API server ends",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  generateName: a-\n  namespace: n\n",
            &["1 v1 Pod n/a-*"],
        ),
        (
            "a name beside the beginning of one",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  generateName: b-\n  namespace: n\n",
            &["1 v1 Pod n/a"],
        ),
        ("crlf", &INGRESS.replace('\n', "\r\n"), &["1 extensions/v1beta1 Ingress n/a"]),
        ("old line ends", &INGRESS.replace('\n', "\r"), &["1 extensions/v1beta1 Ingress n/a"]),
        (
            "byte order marks of joined files",
            &format!("\u{feff}{INGRESS}---\n\u{feff}{INGRESS}\u{feff}---\n{INGRESS}"),
            &[
                "1 extensions/v1beta1 Ingress n/a",
                "7 extensions/v1beta1 Ingress n/a",
                "13 extensions/v1beta1 Ingress n/a",
            ],
        ),
        ("byte order mark", &format!("\u{feff}{INGRESS}"), &["1 extensions/v1beta1 Ingress n/a"]),
        ("marker", &format!("# c\n---\n{INGRESS}"), &["3 extensions/v1beta1 Ingress n/a"]),
        ("marker with comment", &format!("--- # c\n{INGRESS}...\n"), &["2 extensions/v1beta1 Ingress n/a"]),
        ("directive", &format!("%YAML 1.2\n---\n{INGRESS}"), &["3 extensions/v1beta1 Ingress n/a"]),
        (
            "two",
            &format!("{INGRESS}---\n{INGRESS}"),
            &["1 extensions/v1beta1 Ingress n/a", "7 extensions/v1beta1 Ingress n/a"],
        ),
        ("flow", "{apiVersion: a/v1, kind: K, metadata: {name: x}}", &["1 a/v1 K /x"]),
        ("a quoted number", "apiVersion: \"1\"\nkind: 'on'\n", &["1 1 on /"]),
        ("a group that begins with a digit", "apiVersion: 3scale.net/v1\nkind: K\n", &["1 3scale.net/v1 K /"]),
        ("flow on the marker", "--- {apiVersion: a/v1, kind: K}\n", &["1 a/v1 K /"]),
        ("quotes", "\"apiVersion\": 'a/v1'\nkind: \"K\"  # c\n", &["1 a/v1 K /"]),
        ("escapes", "apiVersion: \"a\\/v1\"\nkind: K\n", &["1 a/v1 K /"]),
        ("folded", "apiVersion: >-\n  a/v1\nkind: |-\n  K\n", &["1 a/v1 K /"]),
        ("next line", "apiVersion:\n  a/v1\nkind:\n  K\n", &["1 a/v1 K /"]),
        ("question marks", "? apiVersion\n: a/v1\n? kind\n: K\n", &["1 a/v1 K /"]),
        ("tags", "!!map\napiVersion: !!str a/v1\nkind: !!str K\n", &["2 a/v1 K /"]),
        ("alias", "x: &k K\napiVersion: a/v1\nkind: *k\n", &["2 a/v1 K /"]),
        ("merge", "x: &b {apiVersion: a/v1, kind: K}\n<<: *b\nmetadata: {name: m}\n", &["1 a/v1 K /m"]),
        (
            "late",
            &format!("data:\n  x: |\n{}apiVersion: a/v1\nkind: K\n", "    filler\n".repeat(2000)),
            &["2003 a/v1 K /"],
        ),
        (
            "kubeconfig",
            "apiVersion: v1\nkind: Config\ncurrent-context: a\nusers:\n- name: li\n  user: {token: x}\n- name: ci\n  user:\n    exec:\n      command: c\n      apiVersion: x.io/v1\n- user: {exec: {apiVersion: x.io/v2}}\n- name: no\n  user: {exec: {command: c}}\n- name: none\n",
            &["1 v1 Config /", "11 x.io/v1 ExecCredential /ci", "12 x.io/v2 ExecCredential /"],
        ),
        (
            "kubeconfig of JSON",
            "{\"apiVersion\": \"v1\", \"kind\": \"Config\", \"users\": [\n{\"name\": \"li\", \"user\": {\"token\": \"x\"}},\n{\"name\": \"ci\", \"user\": {\"exec\": {\"apiVersion\": \"x.io/v1\"}}}, null]}",
            &["1 v1 Config /", "3 x.io/v1 ExecCredential /ci"],
        ),
        (
            "kubeconfig that does not say so",
            "clusters: []\ncontexts:\n- {name: c}\nusers:\n- name: ci\n  user: {exec: {apiVersion: x.io/v1}}\n",
            &["1 v1 Config /", "6 x.io/v1 ExecCredential /ci"],
        ),
        (
            "kubeconfig of JSON that says its version alone",
            "{\"apiVersion\": \"v1\", \"clusters\": [], \"contexts\": [],\n\"users\": [{\"name\": \"ci\", \"user\": {\"exec\": {\"apiVersion\": \"x.io/v1\"}}}]}",
            &["1 v1 Config /", "2 x.io/v1 ExecCredential /ci"],
        ),
        (
            "a file of settings with users and no contexts",
            "clusters: []\nusers:\n- name: ci\n  user: {exec: {apiVersion: x.io/v1}}\n",
            &[],
        ),
        (
            "another tool's file with users",
            "apiVersion: x.io/v1\nkind: Config\nusers:\n- name: ci\n  user:\n    exec:\n      apiVersion: x.io/v2\n",
            &["1 x.io/v1 Config /"],
        ),
        (
            "manifest in a string",
            "apiVersion: v1\nkind: ConfigMap\ndata:\n  x.yaml: |\n    apiVersion: extensions/v1beta1\n    kind: Ingress\n",
            &["1 v1 ConfigMap /"],
        ),
        (
            "certificate in a string",
            "apiVersion: v1\nkind: ConfigMap\ndata:\n  ca: |\n    -----BEGIN CERTIFICATE-----\n    x\n    -----END CERTIFICATE-----\n---\napiVersion: a/v1\nkind: K\n",
            &["1 v1 ConfigMap /", "9 a/v1 K /"],
        ),
        (
            "comments that look like it",
            "# apiVersion: extensions/v1beta1\n# kind: Ingress\napiVersion: a/v1\nkind: K\n",
            &["3 a/v1 K /"],
        ),
        (
            "list",
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: a/v1\n  kind: K\n  metadata: {name: x}\n- apiVersion: a/v2\n  kind: K\n",
            &["4 a/v1 K /x", "7 a/v2 K /"],
        ),
        (
            "list in list",
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items:\n  - kind: List\n    apiVersion: v1\n    items:\n      - {kind: K, apiVersion: a/v1}\n",
            &["10 a/v1 K /"],
        ),
        (
            "typed list",
            "apiVersion: apps/v1beta1\nkind: DeploymentList\nitems:\n- metadata:\n    name: x\n",
            &["4 apps/v1beta1 Deployment /x"],
        ),
        ("a sequence", "- apiVersion: a/v1\n  kind: K\n- apiVersion: a/v2\n  kind: K\n", &["1 a/v1 K /", "3 a/v2 K /"]),
        ("json", "{\"apiVersion\":\"a/v1\",\"kind\":\"K\",\"metadata\":{\"name\":\"x\"}}", &["1 a/v1 K /x"]),
        (
            "json lines",
            "{\"apiVersion\":\"a/v1\",\"kind\":\"K\"}\n{\"apiVersion\":\"a/v2\",\n\"kind\":\"K\"}\n",
            &["1 a/v1 K /", "2 a/v2 K /"],
        ),
        (
            "json list",
            "{\n\t\"items\": [\n\t\t{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": [{\"kind\": \"K\",\n \"apiVersion\": \"a\\/v1\"}]}\n], \"kind\": \"List\", \"apiVersion\": \"v1\"}",
            &["4 a/v1 K /"],
        ),
        (
            "json in documents",
            "---\n{\"apiVersion\":\"a/v1\",\"kind\":\"K\"}\n---\n{\"apiVersion\":\"a/v2\",\"kind\":\"K\"}\n",
            &["2 a/v1 K /", "4 a/v2 K /"],
        ),
        ("twice", "apiVersion: a/v1\nkind: K\napiVersion: a/v2\n", &["3 a/v2 K /"]),
        (
            "more than ASCII",
            "apiVersion: a/v1\nkind: K\nmetadata:\n  name: x\n  annotations: {o: 运维}\n",
            &["1 a/v1 K /x"],
        ),
        (
            "openshift",
            "apiVersion: template.openshift.io/v1\nkind: Template\nobjects:\n- {apiVersion: a/v1, kind: K}\n",
            &["4 a/v1 K /"],
        ),
    ];
    for (name, text, expected) in cases {
        let seen = seen(text);
        assert_eq!(seen.objects, *expected, "{name}");
        assert_eq!(seen.troubles, [""; 0], "{name}");
    }
}

#[test]
fn what_cannot_be_read_is_told_and_the_good_objects_beside_it_are_found() {
    let good = "apiVersion: a/v1\nkind: K\n";
    let cases: &[(&str, &str, usize, &[&str])] = &[
        ("bad indentation", &format!("{good}---\na: b\n  c: d\n---\n{good}"), 2, &["5 syntax"]),
        ("a tab", &format!("{good}---\na:\n\tb: c\n"), 1, &["5 syntax"]),
        ("open quote", "apiVersion: \"a/v1\nkind: K\n", 0, &["1 syntax"]),
        ("a template", "apiVersion: a/v1\nkind: K\n{{- if .Values.x }}\nspec: {}\n{{- end }}\n", 0, &["3 template"]),
        ("a template in the version", "apiVersion: {{ .x }}\nkind: K\n", 0, &["1 template"]),
        ("a quoted template in the kind", "apiVersion: a/v1\nkind: \"{{ .x }}\"\n", 0, &["2 template"]),
        ("a variable", "apiVersion: ${API}\nkind: K\n", 0, &["1 template"]),
        ("no version", "kind: K\nmetadata:\n  name: x\n", 0, &["1 incomplete(\"apiversion\")"]),
        ("no kind", "apiVersion: a/v1\nmetadata:\n  name: x\n", 0, &["1 incomplete(\"kind\")"]),
        ("a template alone", "{{ include \"x\" . }}\n", 0, &["1 template"]),
        ("another template alone", "# x\n<%= render \"x\" %>\n", 0, &["2 template"]),
        ("directives after an end", &format!("{good}...\n%YAML 1.2\n---\n{good}"), 2, &[]),
        ("directives after an end with a remark", &format!("a: &x b\n... # end\n%YAML 1.2\n---\n{good}"), 1, &[]),
        ("an alias of nothing", "apiVersion: *x\nkind: K\n", 0, &["1 syntax"]),
        ("a variable without braces", "apiVersion: $API\nkind: K\n", 0, &["1 template"]),
        ("another template", "{% if x %}\napiVersion: a/v1\nkind: K\n{% endif %}\n", 0, &["1 template"]),
        (
            "a list without version",
            "kind: List\nitems:\n- {apiVersion: a/v1, kind: K}\n",
            1,
            &["1 incomplete(\"apiversion\")"],
        ),
        (
            "the same in json",
            "{\"kind\":\"List\",\"items\":[{\"apiVersion\":\"a/v1\",\"kind\":\"K\"}]}",
            1,
            &["1 incomplete(\"apiversion\")"],
        ),
        ("no version, known by its kind", "kind: Deployment\nspec: {}\n", 0, &["1 incomplete(\"apiversion\")"]),
        (
            "no kind of a custom version",
            "apiVersion: x.io/v1\nmetadata: {}\nspec: {}\n",
            0,
            &["1 incomplete(\"kind\")"],
        ),
        ("a list that is none", "apiVersion: v1\nkind: List\nitems:\n  apiVersion: a/v1\n  kind: K\n", 0, &["3 shape"]),
        ("the same in json", "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":{\"kind\":\"K\"}}", 0, &["1 shape"]),
        (
            "keys in other letters",
            "APIVersion: a/v1\nKind: K\nmetadata:\n  name: x\n",
            0,
            &["1 incomplete(\"apiversion\")"],
        ),
        ("a number as version", "apiVersion: 1\nkind: K\n", 0, &["1 shape"]),
        ("a broken number as version", "kind: K\napiVersion: 1.0\nmetadata:\n  name: x\n", 0, &["2 shape"]),
        ("a truth value as kind", "apiVersion: a/v1\nkind: Yes\n", 0, &["2 shape"]),
        ("the same in json", "{\"apiVersion\":\n1,\"kind\":\"K\"}", 0, &["2 shape"]),
        ("a truth value in json", "{\"apiVersion\":\"a/v1\",\n\"kind\": true}", 0, &["2 shape"]),
        ("json with remarks", "{ // c\n \"apiVersion\":\"a/v1\",\"kind\":\"K\"}", 0, &["1 syntax"]),
        (
            "json with a raw line end and a stray letter",
            "{\"apiVersion\":\"a/v1\",\"kind\":\"K\",\"a\":\"b\nc\",x\"metadata\": {}}",
            1,
            &["1 syntax"],
        ),
        ("json after a remark", "// c\n{\"apiVersion\":\"a/v1\",\"kind\":\"K\"}", 0, &["1 syntax"]),
        ("cut json", "{\"apiVersion\":\"a/v1\",\"kind\":\"K\"}\n{\"apiVersion\":", 1, &["2 syntax"]),
        (
            "bad json between good",
            "{\"apiVersion\":\"a/v1\",\"kind\":\"K\"}\n{\"kind\" \"K\"}\n{\"apiVersion\":\"a/v1\",\"kind\":\"K\"}",
            2,
            &["2 syntax"],
        ),
    ];
    for (name, text, objects, troubles) in cases {
        let seen = seen(text);
        assert_eq!(seen.objects.len(), *objects, "{name}: {seen:?}");
        assert_eq!(seen.troubles, *troubles, "{name}");
    }
    let mut raw = Seen::default();
    read(b"apiVersion: a/v1\nkind: \xff\n", &mut raw);
    assert_eq!(raw.troubles, ["2 encoding"]);
    let mut latin = Seen::default();
    read(&[good.as_bytes(), b"---\n# caf\xe9\n", good.as_bytes()].concat(), &mut latin);
    assert_eq!((latin.objects.len(), &latin.troubles[..]), (2, &["4 encoding".to_owned()][..]));
    let mut binary = Seen::default();
    read(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\n---\nx\n", &mut binary);
    assert_eq!((binary.objects.len(), &binary.troubles[..]), (0, &["1 encoding".to_owned()][..]));
    let mut wide = Seen::default();
    let text: Vec<u8> = "\u{feff}apiVersion: a/v1\nkind: K\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    read(&text, &mut wide);
    assert_eq!(wide.objects, ["1 a/v1 K /"]);
}

#[test]
fn a_template_that_reads_as_yaml_is_told_and_what_it_is_meant_to_be_is_judged() {
    for value in [
        "{{ .Release.Name }}",
        "{{ template \"x.fullname\" . }}",
        "{{ .Values.a | quote }}",
        "{{ .Values.a | default \"b\" }}",
        "{{.Values.a}}",
        "{{ printf \"%s-%s\" .Release.Name \"x\" }}",
        "{{ $x }}",
        "{{ x }}",
        "[ {{ x }} ]",
    ] {
        for text in [
            format!("apiVersion: a/v1\nkind: K\nmetadata:\n  name: {value}\n"),
            format!("apiVersion: a/v1\nkind: K\nspec:\n- b: {value}\n"),
        ] {
            let seen = seen(&text);
            assert_eq!((seen.objects.len(), &seen.troubles[..]), (1, &["4 template".to_owned()][..]), "{text}");
        }
    }
    // What is in quotes is text, and other tools fill in their own.
    for text in [
        "apiVersion: a/v1\nkind: K\nmetadata:\n  name: \"{{ .x }}\"\n  a: b{{ x }}\n",
        "a:\n  b: {{ .x }}\n",
        "on: push\njobs: ${{ x }}\n",
    ] {
        assert_eq!(seen(text).troubles, [""; 0], "{text}");
    }
}

#[test]
fn what_is_yaml_and_kubernetes_parser_does_not_take_is_told_and_nothing_that_it_takes() {
    let object = "apiVersion: v1\nkind: ConfigMap\n";
    let refused = [
        "metadata:\n : cm\n",
        "? metadata:\n  name: x\n",
        "a: {name: ?c}\n",
        "a: [? ]\n",
        "a: [c?d]\n",
        "a: {b: http://x/?q=1}\n",
        "a: {b: :c}\n",
        "<<: text\n",
        "a: {<<: [b]}\n",
        "a: &a [{b: c}]\n<<: *a\n",
        "null: x\n",
        "a: {Null: x}\n",
        "~: x\n",
        ": x\n",
        "? [a]\n: b\n",
        "a: {[b]: c}\n",
        "x: &a {b: c}\ny: {*a : d}\n",
        "a: |\n  \tfoo\n",
        "a: |\n\n  \t\n  foo\n",
        "a:\n  b: >-\n    \tfoo\n",
        "a: é\nb: |\n  foo\n\tbar\n",
        "a:\n  -\tb\n",
        "a:\n  - \tb: c\n",
    ];
    for text in refused {
        let whole = format!("{object}---\n{object}{text}---\n{object}");
        let seen = seen(&whole);
        assert_eq!(seen.troubles.len(), 1, "{text}: {seen:?}");
        assert!(seen.objects.len() >= 2, "{text}: {seen:?}");
    }
    let taken = [
        "'': b\n",
        "'null': b\n",
        "!!str null: b\n",
        "<<: []\n",
        "'<<': text\n",
        "a: &a {x: y}\n<<: [*a, {b: c}]\n",
        "a: [?c]\n",
        "a: {? b : c}\n",
        "a: ?c\n",
        "a: :c\n",
        "a: http://x/?q=1\n",
        "a: [a :b, 'x?', \"?y\"]\n",
        "&a a: b\nc: {*a : d}\n",
        "a: |2\n  \tfoo\n",
        "a: |\n  foo\n  \tbar\n",
        "a: >\n  foo\n  \t\n  bar\n",
        "a: |\nb: \"c\n \td\"\n",
        "a:\tb\n",
        "a: [b,\n\tc]\n",
        "5: b\ntrue: c\n",
    ];
    for text in taken {
        let seen = seen(&format!("{object}{text}"));
        assert_eq!((seen.objects.len(), &seen.troubles[..]), (1, &[][..]), "{text}");
    }
}

#[test]
fn an_item_of_a_list_that_is_no_object_is_told_beside_the_others() {
    let good = "{\"apiVersion\": \"a/v1\", \"kind\": \"K\"}";
    for (item, trouble) in [
        ("\"text\"", Some("shape")),
        ("3", Some("shape")),
        ("true", Some("shape")),
        ("{\"apiVersion\": \"a/v1\"}", Some("incomplete(\"kind\")")),
        ("{\"kind\": \"K\"}", Some("incomplete(\"apiversion\")")),
        ("{\"a\": \"b\"}", Some("incomplete(\"apiversion\")")),
        ("null", None),
    ] {
        let items = format!("[{good},\n {item},\n {good}]");
        for text in [
            format!("{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": {items}}}"),
            format!("apiVersion: v1\nkind: List\nitems: {items}\n"),
        ] {
            let line = if text.starts_with('{') { 2 } else { 4 };
            let troubles: Vec<String> = trouble.iter().map(|trouble| format!("{line} {trouble}")).collect();
            let seen = seen(&text);
            assert_eq!((seen.objects.len(), seen.troubles), (2, troubles), "{text}");
        }
    }
    assert_eq!(seen("apiVersion: a/v1\nkind: KList\nitems: [b]\n").troubles, ["3 shape"]);
}

#[test]
fn half_a_character_in_json_hides_no_object() {
    let object =
        |with: &str| format!("{{\"apiVersion\":\"a/v1\",\"kind\":\"K\",\"metadata\":{{\"name\":\"x\"}}{with}}}");
    for with in [",\"\\ud800\":1", ",\"a\":\"\\uDFFF\\uD800\"", ",\"\\\\ud800\":1", ",\"\\ud83d\\ude00\":1"] {
        let list = format!("{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{},{}]}}", object(with), object(""));
        let seen = seen(&list);
        assert_eq!((seen.objects.len(), &seen.troubles[..]), (2, &[][..]), "{list}");
    }
    let named = seen("{\"apiVersion\":\"a/v1\",\"kind\":\"K\",\"metadata\":{\"name\":\"x\\ud800\",\"labels\":{}}}");
    assert_eq!(named.objects, ["1 a/v1 K /x\u{fffd}"]);
}

#[test]
fn what_stands_where_a_manifest_should_be_is_told() {
    for text in [
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "$ANSIBLE_VAULT;1.1;AES256\n3132\n3334\n",
        "<!DOCTYPE html>\n<html><body>404</body></html>\n",
        "<?xml version=\"1.0\"?>\n<Error/>\n",
    ] {
        let seen = seen(text);
        assert!(seen.troubles.len() == 1 && seen.troubles[0].starts_with("1 unreadable"), "{text}: {seen:?}");
    }
}

#[test]
fn what_refers_to_itself_or_grows_without_end_is_bounded() {
    let mut bomb = "a0: &a0 {apiVersion: a/v1, kind: K}\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} {{apiVersion: v1, kind: List, items: [{before}]}}\n"));
    }
    bomb.push_str("apiVersion: v1\nkind: List\nitems: *a11\n");
    assert!(seen(&bomb).objects.len() <= OBJECTS_MAX);
    let within = "apiVersion: v1\nkind: List\nitems: &a\n- {apiVersion: v1, kind: List, items: *a}\n";
    assert_eq!(seen(within).troubles.len(), 1);
    // References that multiply while one key is looked for.
    let mut merged = "x0: &x0 {a: 1}\n".to_owned();
    for level in 1..8 {
        let before = format!("*x{}, ", level - 1).repeat(60);
        merged.push_str(&format!("x{level}: &x{level} {{<<: [{before}]}}\n"));
    }
    let wide = format!("- &w {{{}}}\n{}", "a: 1, ".repeat(30_000), "- *w\n".repeat(30_000));
    for text in [merged + "<<: *x7\nkind: K\n", wide] {
        assert_eq!(seen(&text).troubles, ["1 bounds"]);
    }
    // Text that packs well is no large tree, and what is left out of it is told; what cannot matter takes no room.
    assert_eq!(seen(&"- a\n".repeat(1_000_001)).troubles.len(), 1);
    let item = format!("- apiVersion: a/v1\n  kind: K\n  spec: [{}]\n", "a, ".repeat(1_000));
    let list = seen(&format!("apiVersion: v1\nkind: List\nitems:\n{}", item.repeat(1_100)));
    assert_eq!((list.objects.len(), list.troubles.len()), (1_100, 0));
    let many =
        format!("{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[[{0}0],[{0}0]]}}", "0,".repeat(OBJECTS_MAX));
    assert!(seen(&many).troubles.iter().filter(|trouble| trouble.ends_with("bounds")).count() == 1);
    for deep in ["[".repeat(100_000), "{\"a\":".repeat(100_000), "- ".repeat(100_000), "a:\n ".repeat(9)] {
        let seen = seen(&deep);
        assert!(seen.objects.is_empty());
    }
}

#[test]
fn files_without_objects_are_no_trouble() {
    for text in [
        "",
        "\n\n",
        "# only a comment\n",
        "---\n---\n",
        "a: 1\n",
        "just text\n",
        "apiVersion: v2\nname: chart\n",
        "kind: Kustomization\nmetadata:\n  name: arbitrary\nresources: [a.yaml]\n",
        "apiVersion: score.dev/v1b1\nmetadata:\n  name: x\ncontainers: {}\n",
        "kind: Deploy\nname: x\nspec:\n  files: [a]\n",
        "{\"kind\": \"pipeline\", \"spec\": {\"stages\": []}}",
        "Kind: of\nanything: else\n",
        "{\"kind\": \"compute#instanceList\", \"items\": [{\"kind\": \"compute#instance\"}]}",
        "apiVersion: v1\nkind: List\nitems: null\n",
        "5",
        "null\n",
        "[]",
        "{}",
    ] {
        let seen = seen(text);
        assert_eq!((seen.objects.len(), seen.troubles.len()), (0, 0), "{text:?}: {seen:?}");
    }
}

mod agreement {
    //! The scanner and the library say the same of every document that the scanner accepts.

    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    fn line() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec![
            "apiVersion",
            "kind",
            "metadata",
            "name",
            "namespace",
            "generateName",
            "spec",
            "a",
            "\"b\"",
            "'c'",
            "a/b.c",
            "items",
            "- a",
            "- - a",
            "-",
            "- \"b\"",
            "?",
            "<<",
            "- name",
            "null",
            "NULL",
        ]);
        let value = prop::sample::select(vec![
            "",
            "v",
            "apps/v1",
            "\"q: v\"",
            "'s #'",
            "\"a\\n\"",
            "|",
            ">-",
            "|2",
            "{}",
            "[]",
            "[a, b]",
            "{a: b}",
            "[a,b]",
            "[\"a\",\"b\"]",
            "{a: b",
            "a: b",
            "a #c",
            "a#c",
            "# c",
            "&x v",
            "*x",
            "!t v",
            "- v",
            "-v",
            "--- v",
            "%v",
            "@v",
            "`v",
            "\"v",
            "'v''w'",
            "\"v\" w",
            "null",
            "~",
            "1",
            "true",
            ": v",
            "v:",
            "{{ .x }}",
            "a{{b}}",
            "é",
            "\tv",
            "v\t",
            "[a, ]",
            "[-a, -]",
            "{\"a\": \"b\"}",
            "[a b]",
            "[ ]",
            "{a: b, c: d}",
            "(v)",
            "<v>",
            "=v",
            "+1",
            "$v",
            ",v",
            "]",
        ]);
        let whole = prop::sample::select(vec![
            "---",
            "...",
            "--- ",
            "--- x",
            "# c",
            "",
            "   ",
            "text",
            "- v",
            "-",
            "- |",
            "%YAML 1.2",
            "\tx",
            "\"q\"",
            "{a: b}",
            "----",
        ]);
        let indent = prop::sample::select(vec![0_usize, 0, 0, 2, 2, 4, 1, 3, 6]);
        prop_oneof![
            4 => (indent.clone(), key, value).prop_map(|(indent, key, value)| {
                let colon = if value.is_empty() { ":" } else { ": " };
                format!("{}{key}{colon}{value}", " ".repeat(indent))
            }),
            1 => (indent, whole).prop_map(|(indent, whole)| format!("{}{whole}", " ".repeat(indent))),
        ]
    }

    #[test]
    fn the_scanner_accepts_nothing_that_the_library_reads_otherwise() {
        let config = Config { cases: 6_000, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
        let accepted = std::cell::Cell::new(0);
        runner
            .run(&(prop::collection::vec(line(), 1..7), any::<bool>()), |(lines, has_begin)| {
                let begin = if has_begin { "apiVersion: a/v1\nkind: K\n" } else { "" };
                let text = format!("{begin}{}\n", lines.join("\n"));
                if let Some(read) = simple::document(&text, 1) {
                    accepted.set(accepted.get() + u32::from(read.object.is_some()));
                    let mut found = tree::Found::default();
                    let document = &text[..read.length];
                    let outcome = tree::documents(document, 1, &mut found);
                    prop_assert!(outcome.is_ok(), "{outcome:?}\n{document}");
                    let (mut library, mut scanner) = (Seen::default(), Seen::default());
                    found.replay(&mut library);
                    if let Some(object) = read.object {
                        scanner.object(object);
                    }
                    prop_assert_eq!(&library.objects, &scanner.objects, "{}", document);
                    prop_assert_eq!(&library.troubles, &scanner.troubles, "{}", document);
                }
                Ok(())
            })
            .unwrap();
        assert!(accepted.get() > 100, "only {} documents were objects", accepted.get());
    }

    /// Both say the same of a text, document by document, as far as the scanner takes it.
    fn agrees(text: &str) -> Result<u32, TestCaseError> {
        let (mut rest, mut accepted) = (text, 0);
        while let Some(read) = simple::document(rest, 1) {
            let document = &rest[..read.length];
            let mut found = tree::Found::default();
            let outcome = tree::documents(document, 1, &mut found);
            prop_assert!(outcome.is_ok(), "{outcome:?}\n{document}");
            let (mut library, mut scanner) = (Seen::default(), Seen::default());
            found.replay(&mut library);
            if let Some(object) = read.object {
                scanner.object(object);
                accepted += 1;
            }
            prop_assert_eq!(&library.objects, &scanner.objects, "{}", document);
            prop_assert_eq!(&library.troubles, &scanner.troubles, "{}", document);
            rest = &rest[read.length..];
            if rest.is_empty() || read.length == 0 {
                break;
            }
        }
        Ok(accepted)
    }

    const REAL: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: app\n  namespace: team\n  labels:\n    app: app\n    app.kubernetes.io/name: \"app\"\n  annotations:\n    note: |\n      several\n        lines\n\n      of text\n    empty: \"\"\nspec:\n  replicas: 3\n  selector:\n    matchLabels: {app: app}\n  template:\n    spec:\n      containers:\n      - name: main\n        image: registry.example.com:5000/team/app:1.2 # tag\n        args: [\"--port\", \"8080\"]\n        command:\n        - sh\n        - -c\n        - >-\n          exec app\n        env:\n        - {name: A, value: 'b'}\n        ports:\n        - containerPort: 8080\n---\n# next\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a.yaml: |\n    apiVersion: extensions/v1beta1\n    kind: Ingress\n";

    /// `SHIPLOCK_FUZZ_CASES` asks for more cases, and `SHIPLOCK_FUZZ_SEED` for others.
    #[test]
    fn a_real_manifest_that_is_damaged_anywhere_is_read_alike_or_not_by_the_scanner() {
        let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let cases = asked("SHIPLOCK_FUZZ_CASES").unwrap_or(4_000);
        let seed = u8::try_from(asked("SHIPLOCK_FUZZ_SEED").unwrap_or(9) % 256).unwrap();
        let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]));
        let damage = prop_oneof![
            prop::sample::select(vec![
                " ",
                "  ",
                "\n",
                "\t",
                "-",
                "- ",
                ":",
                ": ",
                "#",
                " #",
                "'",
                "\"",
                "|",
                ">",
                "{",
                "}",
                "[",
                "]",
                ",",
                "&a ",
                "*a",
                "!t ",
                "%",
                "@",
                "`",
                "\\",
                "? ",
                "<<: ",
                "---\n",
                "...\n",
                "~",
                "null",
                "\r\n",
                "\u{feff}",
                "é",
                "\u{85}",
                "apiVersion: v2\n",
                "kind: List\n",
                "items:\n",
                "metadata:\n",
                "name: x\n",
                "{{ .x }}",
                "${X}",
            ])
            .prop_map(str::to_owned),
            Just(String::new()),
        ];
        let edit = (any::<prop::sample::Index>(), 0_usize..6, damage);
        let accepted = std::cell::Cell::new(0);
        runner
            .run(&prop::collection::vec(edit, 1..4), |edits| {
                let mut text = REAL.to_owned();
                for (place, removed, put) in edits {
                    let begin = place.index(text.len());
                    let boundary = |at: usize| (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap();
                    let range = boundary(begin)..boundary((begin + removed).min(text.len()));
                    text.replace_range(range, &put);
                }
                accepted.set(accepted.get() + agrees(&text)?);
                Ok(())
            })
            .unwrap();
        assert!(accepted.get() > cases / 4, "only {} documents were objects", accepted.get());
    }

    #[test]
    fn no_text_makes_the_reader_panic() {
        let config = Config { cases: 2_000, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[8; 32]));
        runner
            .run(&prop::collection::vec(any::<u8>(), 0..200), |bytes| {
                read(&bytes, &mut Seen::default());
                Ok(())
            })
            .unwrap();
    }
}
