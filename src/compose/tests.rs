mod environment;

use super::*;
use crate::{
    catalog::entry::Word,
    supervisor::launch::{Inputs, Launch, plan},
};

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn environment() -> Environment {
    [("TOKEN", "outside-token"), ("TAG", "2"), ("HOME", "/nowhere")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn read_in(folder: &tempfile::TempDir) -> ComposeFile {
    read(&folder.path().join(FILE), &environment()).unwrap()
}

fn problems(file: &ComposeFile) -> String {
    file.problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn the_two_examples_everybody_knows() {
    let folder = folder(&[(
        FILE,
        "services:\n  time:\n    image: mcp/time\n  fs:\n    image: mcp/filesystem\n    command:\n      - /rootfs\n    volumes:\n      - .:/rootfs\n",
    )]);
    let file = read_in(&folder);
    assert_eq!(problems(&file), "");
    let [time, fs] = &file.definitions[..] else { panic!("{file:?}") };
    assert_eq!((time.image.as_str(), time.shown.as_str()), ("mcp/time", "image mcp/time"));
    assert_eq!(fs.command.as_deref(), Some(&[Word::Plain("/rootfs".to_owned())][..]));
    let here = folder.path().canonicalize().unwrap();
    assert_eq!((&fs.binds[0].source, fs.binds[0].read_only), (&here, false));
    let expected = format!("image mcp/filesystem; command /rootfs; mounts {} at /rootfs, writable", here.display());
    assert_eq!(fs.shown, expected);
}

#[test]
fn everything_that_is_supported_is_read() {
    let yaml = r#"
x-common: &common
  user: 1000:1000
  mem_limit: 512m
  environment: {LEVEL: info}
volumes: {notes: }
services:
  all:
    <<: *common
    image: "example/all:${TAG:-latest}"
    entrypoint: /bin/server --flag "two words"
    command: [serve, "${NONE:-none}", 3]
    environment:
      PLAIN: $$5
      TOKEN:
      URL: https://${HOST}/x
      PORT: 8080
      ON: true
    env_file:
      - one.env
      - {path: absent.env, required: false}
    volumes:
      - ./data:/data:ro
      - notes:/notes
      - {type: bind, source: ./data, target: /more, read_only: true}
    working_dir: /work
    cpus: "0.5"
    network_mode: none
    privileged: false
    init: true
  listed:
    image: example/listed
    environment: [A=1, "B=${TOKEN}", API_KEY=sk-of-the-file, TOKEN, NOWHERE]
    mem_limit: 1.5gb
"#;
    let folder = folder(&[
        (FILE, yaml),
        (".env", "HOST=example.org\nTOKEN=from the file\n"),
        ("one.env", "ONE=1\nLEVEL=debug\nPLAIN=over\n"),
        ("data/x", ""),
    ]);
    let file = read_in(&folder);
    assert_eq!(
        problems(&file),
        "warning: line 23: services.all.volumes: `notes` is each session's own, and ends with it\n"
    );
    let [all, listed] = &file.definitions[..] else { panic!("{file:?}") };
    assert_eq!(all.image, "example/all:2");
    let words =
        |words: &Option<Vec<Word>>| words.clone().unwrap().iter().map(|word| word.filled(|_| None)).collect::<Vec<_>>();
    assert_eq!(words(&all.entrypoint), ["/bin/server", "--flag", "two words"]);
    assert_eq!(words(&all.command), ["serve", "none", "3"]);
    let pairs = |map: &Environment| map.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    assert_eq!(pairs(&all.environment), ["ON=true", "PLAIN=$5", "PORT=8080"], "a key of its own replaces the anchor's");
    assert_eq!(pairs(&all.secrets), ["LEVEL=debug", "ONE=1", "TOKEN=outside-token", "URL=https://example.org/x"]);
    assert_eq!(all.binds.len(), 2);
    assert!(all.binds.iter().all(|bind| bind.read_only));
    assert_eq!(all.volumes, ["notes:/notes"]);
    assert_eq!((all.user.as_deref(), all.working_dir.as_deref()), (Some("1000:1000"), Some("/work")));
    assert_eq!((all.memory_bytes, all.nano_cpus, all.disable_network), (Some(512 << 20), Some(500_000_000), true));
    let shown = all.shown.replace(&folder.path().canonicalize().unwrap().display().to_string(), "FOLDER");
    insta::assert_snapshot!(shown.replace("; ", "\n"), @r"
    image example/all:${TAG:-latest}
    entrypoint /bin/server --flag two words
    command serve ${NONE:-none} 3
    reads variables from one.env
    environment PLAIN=$$5 URL=https://${HOST}/x PORT=8080 ON=true
    mounts FOLDER/data at /data
    volume notes at /notes
    mounts FOLDER/data at /more
    user 1000:1000
    working_dir /work
    mem_limit 512m
    cpus 0.5
    network_mode none
    is given the values of HOST, LEVEL, NONE, ONE, PLAIN, TAG, TOKEN
    ");
    assert!(!format!("{all:?}{}", all.shown).contains("outside-token"));
    assert_eq!(pairs(&listed.environment), ["A=1", "API_KEY=sk-of-the-file"]);
    assert!(listed.shown.contains("environment A=1 B=${TOKEN} API_KEY=[redacted]; mem_limit"), "{}", listed.shown);
    assert_eq!(pairs(&listed.secrets), ["B=outside-token", "TOKEN=outside-token"]);
    assert_eq!(listed.memory_bytes, Some(3 << 29));
}

#[test]
fn what_is_not_supported_is_named_with_its_line() {
    let yaml = r#"services:
  built:
    build: .
  kept:
    image: example/kept
    container_name: x
    ports: ["80:80"]
    depends_on: [built]
    x-more: fine
  many:
    image: example/many
    extends: {service: kept}
    privileged: true
    cap_add: [ALL]
    enviroment: {A: 1}
    mem_limit: lots
    working_dir: here
    volumes: ["/etc:/x", "./absent:/x", "undeclared:/x", "a:/x:weird", "..:/up:ro"]
    environment: {A: [1], "B C": 1, C: "${D:?say where}"}
    env_file: missing.env
  "a b": {image: x}
  nothing:
  spaced:
    image: "two words"
networks: {n: }
"#;
    let folder = folder(&[(FILE, yaml)]);
    let file = read_in(&folder);
    let kept: Vec<&str> = file.definitions.iter().map(|definition| definition.name.as_str()).collect();
    assert_eq!(kept, ["kept"]);
    assert!(file.has_errors());
    let told = problems(&file).replace(&folder.path().canonicalize().unwrap().display().to_string(), "FOLDER");
    insta::assert_snapshot!(told, @r"
    warning: networks: is left out: servers of a session share one network of their own
    error: services.a b: cannot name a service: 1 to 64 of the letters a-z A-Z 0-9 . _ -
    error: services.nothing: says nothing: a service has to have an image
    error: line 3: services.built.build: is not supported: nothing is built here: build the image and name it in `image`
    warning: line 6: services.kept.container_name: is left out: containers have names of the engine's choice
    warning: line 7: services.kept.ports: is left out: nothing is published: servers are spoken to over standard input and output
    warning: line 8: services.kept.depends_on: is left out: servers are started when they are called, in no order
    error: line 12: services.many.extends: is not supported: write the service out
    error: line 13: services.many.privileged: is not supported: servers have no rights beyond their container
    error: line 14: services.many.cap_add: is not supported: servers have no capabilities
    error: line 15: services.many.enviroment: is not supported, or no key of a service
    error: line 16: services.many.mem_limit: has to be a number of bytes, or of b, k, m or g, as in 512m
    error: line 17: services.many.working_dir: has to be an absolute path in the container
    error: line 18: services.many.volumes[0]: a container never sees /etc
    error: line 18: services.many.volumes[1]: there is no FOLDER/./absent
    error: line 18: services.many.volumes[2]: there is no volume `undeclared` in the file's `volumes`; a folder is written `./undeclared`
    error: line 18: services.many.volumes[3]: the option `weird` is not supported
    error: line 19: services.many.environment.A: has to be text, a number or a truth value
    error: line 19: services.many.environment: `B C` is no variable's name
    error: line 19: services.many.environment.C: needs the variable `D`: say where
    error: line 20: services.many.env_file[0]: could not read FOLDER/missing.env: No such file or directory (os error 2)
    error: line 24: services.spaced.image: is no reference to an image
    ");
}

#[test]
fn values_are_neither_shown_nor_kept_beside_the_file() {
    let yaml = r#"services:
  words:
    image: example/words:${TAG}
    entrypoint: /server --level ${LEVEL:-info}
    command: ["--token=${TOKEN}-${NONE:-x}", "$$HOME"]
  mounted:
    image: x
    volumes: ["./${DIR}:/data/${TOKEN_FILE}:ro", {type: bind, source: "${DIR}", target: "/${DIR}"}]
  wrong:
    image: x
    volumes: ["./${PLACE}:/x", "/${ETC}:/x", "${PLACE}", "./:${PLACE}", "./:/x:${PLACE}", "?${PLACE}:/x", "a:b:c:${PLACE}", "${PLACE}:/x"]
    env_file: ["${PLACE}.env"]
  secretive:
    image: example/${TOKEN}
    user: ${API_KEY}
    volumes: ["${TOKEN}:/x"]
    working_dir: /${PLAIN}
"#;
    let folder = folder(&[
        (FILE, yaml),
        (
            ".env",
            "DIR=hunter2-dir\nPLACE=hunter2-place\nETC=etc\nTOKEN_FILE=/token\nAPI_KEY=hunter2-key\nPLAIN=a-${API_KEY}\n",
        ),
        ("hunter2-dir/x", ""),
    ]);
    let file = read_in(&folder);
    let [words, mounted] = &file.definitions[..] else { panic!("{file:?}") };
    assert_eq!(
        words.shown,
        "image example/words:${TAG}; entrypoint /server --level ${LEVEL:-info}; command --token=${TOKEN}-${NONE:-x} $$HOME; is given the values of LEVEL, NONE, TAG, TOKEN"
    );
    let sealed: Vec<_> = words.sealed_values().collect();
    assert_eq!(sealed, [("words:=TOKEN".to_owned(), "outside-token")]);
    let kept = serde_json::to_string(&words.without_secrets()).unwrap();
    assert!(!kept.contains("outside-token") && !format!("{words:?}").contains("outside-token"), "{kept}");
    let again: Definition = serde_json::from_str(&kept).unwrap();
    let filled = |word: &Word| word.filled(|name| words.values.get(name).cloned());
    let command: Vec<String> = again.command.unwrap().iter().map(filled).collect();
    assert_eq!(command, ["--token=outside-token-x", "$HOME"]);

    assert!(mounted.shown.contains("mounts ./${DIR}:/data/${TOKEN_FILE}:ro; mounts ${DIR} at /${DIR}, writable"));
    assert!(mounted.binds[0].source.ends_with("hunter2-dir"));
    let here = folder.path().canonicalize().unwrap().join("hunter2-dir");
    let here = here.display();
    let leads = [format!("mounts {here} at /data//token"), format!("mounts {here} at /hunter2-dir")];
    assert_eq!((&mounted.leads, words.leads.len()), (&leads.to_vec(), 0));
    let shown =
        format!("{}{}", file.definitions.iter().map(|one| one.shown.as_str()).collect::<String>(), problems(&file));
    assert!(!shown.contains("hunter2") && !shown.contains("outside-token"), "{shown}");
    let told = problems(&file);
    insta::assert_snapshot!(told, @r"
    error: line 11: services.wrong.volumes[0]: there is no ./${PLACE}:/x
    error: line 11: services.wrong.volumes[1]: a container never sees what /${ETC}:/x leads to
    error: line 11: services.wrong.volumes[2]: `${PLACE}` is not an absolute path in the container
    error: line 11: services.wrong.volumes[3]: `./:${PLACE}` is not an absolute path in the container
    error: line 11: services.wrong.volumes[4]: the option `./:/x:${PLACE}` is not supported
    error: line 11: services.wrong.volumes[5]: `?${PLACE}:/x` is neither a volume's name nor a path: a path begins with . or /
    error: line 11: services.wrong.volumes[6]: `a:b:c:${PLACE}` is not source:target or source:target:ro
    error: line 11: services.wrong.volumes[7]: there is no volume `${PLACE}:/x` in the file's `volumes`; a folder is written `./${PLACE}:/x`
    error: line 12: services.wrong.env_file[0]: could not read ${PLACE}.env: No such file or directory (os error 2)
    error: line 14: services.secretive.image: uses `TOKEN`, which looks like a secret and would be seen here: such values have their place in `environment`, `env_file`, `command` and `entrypoint`
    error: line 15: services.secretive.user: uses `API_KEY`, which looks like a secret and would be seen here: such values have their place in `environment`, `env_file`, `command` and `entrypoint`
    error: line 16: services.secretive.volumes[0]: uses `TOKEN`, which looks like a secret and would be seen here: such values have their place in `environment`, `env_file`, `command` and `entrypoint`
    error: line 17: services.secretive.working_dir: uses `PLAIN`, which has something in it that looks like a secret and would be seen here: such values have their place in `environment`, `env_file`, `command` and `entrypoint`
    ");
}

#[test]
fn what_a_person_agrees_to_is_told_whole() {
    let outside = folder(&[("other.env", "FROM_OTHER=${DEEP}\n")]);
    let path = outside.path().canonicalize().unwrap().join("other.env").display().to_string();
    let long = "x".repeat(5000);
    let yaml = format!(
        "services:\n  a:\n    image: x\n    command: [\"{long}\", last]\n    environment: [\"MADE\"]\n    \
         env_file: [in.env, \"{path}\"]\n"
    );
    let folder = folder(&[(FILE, &yaml), (".env", "MADE=${HIDDEN}\n"), ("in.env", "IN=${WITHIN:-}$IN_VAIN\n")]);
    let person = ["HIDDEN", "DEEP", "WITHIN"].map(|name| (name.to_owned(), "v".to_owned())).into();
    let file = read(&folder.path().join(FILE), &person).unwrap();
    assert_eq!(problems(&file), "");
    let shown = file.definitions[0].shown.clone();
    assert!(shown.contains(&format!("command {long} last; reads variables from in.env; ")), "{shown}");
    let rest = format!(
        "reads variables from {path}, which is outside the folder (1 of them); is given the values of DEEP, HIDDEN, IN, IN_VAIN, MADE, WITHIN"
    );
    assert!(shown.ends_with(&rest), "{shown}");
    let offer = file.offer(false);
    let (lines, is_all) = offer.lines();
    assert!(!is_all && lines[0].ends_with(" […]"), "a cut shows: {lines:?}");
    assert!(offer.notice().contains("That is not all of it: `mcp-broker compose check"), "{}", offer.notice());

    let linked = self::folder(&[(FILE, "services: {a: {image: \"x:${FROM_OTHER}\"}}")]);
    std::os::unix::fs::symlink(&path, linked.path().join(".env")).unwrap();
    let shown = read_in(&linked).definitions[0].shown.clone();
    assert!(shown.contains(&format!("reads variables from {path}, which .env leads to; is given")), "{shown}");

    let led = self::folder(&[
        (FILE, "services: {a: {image: x, volumes: [\"${DIR}:/srv\"], env_file: \"${ONE}.env\"}, b: {image: x}}"),
        (".env", "DIR=/srv\nONE=one\n"),
        ("one.env", "A=1\n"),
    ]);
    let file = read_in(&led);
    let path = led.path().canonicalize().unwrap().join("one.env").display().to_string();
    let leads = [format!("reads variables from {path}"), "mounts /srv at /srv".to_owned()];
    assert_eq!(file.definitions[0].leads, leads, "also where what is written has the same text in it");
    let offer = file.offer(false);
    assert!(!offer.lines().1 && offer.notice().contains("That is not all of it"), "{}", offer.notice());
    assert!(!offer.notice().contains(&path), "where it leads is not for everybody: {}", offer.notice());

    let many: String = (0..20).map(|at| format!("  s{at}: {{image: x}}\n")).collect();
    let folder = self::folder(&[(FILE, &format!("services:\n{many}"))]);
    let (lines, is_all) = read_in(&folder).offer(false).lines();
    assert_eq!((lines.len(), lines.last().unwrap().as_str(), is_all), (17, "… and 4 more", false));
}

#[test]
fn a_file_that_grows_when_it_is_read_is_not_read_to_its_end() {
    let doubled: String = (0..5).map(|at| format!("V{}=$V{at}$V{at}\n", at + 1)).collect();
    let names: String = (0..6).map(|at| format!("      - A{at}=$V{at}$V{at}\n")).collect();
    let services: String = (0..60).map(|at| format!("  s{at}:\n    image: x\n    environment:\n{names}")).collect();
    let grows =
        folder(&[(FILE, &format!("services:\n{services}")), (".env", &format!("V0={}\n{doubled}", "x".repeat(1000)))]);
    let file = read_in(&grows);
    let made: usize = file.definitions.iter().flat_map(Definition::sealed_values).map(|(_, value)| value.len()).sum();
    assert!(made < 4 << 20, "{made}");
    assert!(file.has_errors() && problems(&file).contains("too large with their variables filled in"));

    let files = vec!["one.env"; 17].join(", ");
    let many = folder(&[(FILE, &format!("services: {{a: {{image: x, env_file: [{files}]}}}}")), ("one.env", "")]);
    assert!(problems(&read_in(&many)).contains("env_file: has more than 16 files"));
    let large = folder(&[
        (FILE, "services: {a: {image: x, env_file: [one.env, one.env, one.env, one.env, one.env, one.env]}}"),
        ("one.env", &format!("# {}\n", "x".repeat(1_000_000))),
    ]);
    assert!(problems(&read_in(&large)).contains("env_file[4]: is too much"), "{}", problems(&read_in(&large)));
    let (long, value) = ("N".repeat(200), "v".repeat(70_000));
    let kept = folder(&[
        (FILE, "services: {a: {image: x, env_file: [one.env]}}"),
        ("one.env", &format!("{long}=1\nB={value}\n")),
    ]);
    let told = problems(&read_in(&kept));
    assert!(told.contains("is too long") && told.contains("the value of `B` is longer than 65536 bytes"), "{told}");
    let worded = folder(&[
        (FILE, &format!("services: {{a: {{image: x, command: [\"${long}\"]}}, b: {{image: x}}}}")),
        (".env", &format!("{long}=1\n")),
    ]);
    let file = read_in(&worded);
    assert!(problems(&file).contains("services.a.command: the name `NNN"), "{}", problems(&file));
    assert_eq!(file.definitions.len(), 1, "a name that cannot be kept leaves its own service out, and no other");
}

#[test]
fn what_is_agreed_to_is_all_that_counts() {
    let yaml = "services:\n  a:\n    image: x\n    env_file: [{path: a.env, required: false}]\n    volumes: [\"./data:/data\"]\n    environment: [TOKEN]\n";
    let folder = folder(&[(FILE, yaml), ("one/x", ""), ("two/x", "")]);
    let link = folder.path().join("data");
    let point = |to: &str| {
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(folder.path().join(to), &link).unwrap();
    };
    point("one");
    let first = read_in(&folder).hash;
    assert_eq!(read_in(&folder).hash, first);
    let other_value = [("TOKEN".to_owned(), "rotated".to_owned())].into();
    assert_eq!(
        read(&folder.path().join(FILE), &other_value).unwrap().hash,
        first,
        "a person's own variables may change"
    );
    let mut hashes = vec![first.clone()];
    point("two");
    hashes.push(read_in(&folder).hash);
    point("one");
    for (name, text) in [("a.env", "A=1"), ("a.env", "A=2"), (".env", "B=1"), (FILE, &format!("{yaml}# more\n"))] {
        fs::write(folder.path().join(name), text).unwrap();
        hashes.push(read_in(&folder).hash);
    }
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 6, "each change is another file");
    let copy = self::folder(&[(FILE, yaml), ("data/x", "")]);
    assert_ne!(read_in(&copy).hash, first, "the same text elsewhere mounts another folder");
}

#[test]
fn a_consent_is_to_what_was_shown_whatever_is_set_later() {
    let yaml = r#"services:
  a:
    image: x:${TAG:+$LATER_1}
    command: ["${LATER_2:-}", "${FLAG-${LATER_3:+${LATER_4:-$LATER_5}}}"]
    environment: [LATER_6, "X=${MADE:-}"]
    env_file: [a.env]
"#;
    let (later, made) = ("LATER_7\nA=${LATER_8:-}\n", "MADE=${TAG-${LATER_9}}\n");
    let folder = folder(&[(FILE, yaml), ("a.env", later), (".env", made)]);
    let reads = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read(&folder.path().join(FILE), &variables).unwrap()
    };
    let before = reads(&[]);
    let all: Vec<String> = (1..=9).map(|at| format!("LATER_{at}")).collect();
    assert!(before.definitions[0].shown.contains("is given the values of A, FLAG, LATER_1, LATER_2"));
    assert!(all.iter().all(|name| before.definitions[0].shown.contains(name)), "{}", before.definitions[0].shown);
    let all = all.iter().map(String::as_str).chain(["TAG", "FLAG", "MADE"]);
    let after = reads(&all.map(|name| (name, "v")).collect::<Vec<_>>());
    assert_eq!((&after.definitions[0].shown, &after.hash), (&before.definitions[0].shown, &before.hash));

    let yaml = "services:\n  shown: {image: x}\n  extra: {image: example/extra, command: [\"${CI:?}\"]}\n";
    fs::write(folder.path().join(FILE), yaml).unwrap();
    let (without, with) = (reads(&[]), reads(&[("CI", "1")]));
    assert_eq!((without.definitions.len(), with.definitions.len()), (1, 2));
    assert_ne!(without.hash, with.hash, "a service that was not shown was not agreed to");
    fs::write(folder.path().join(FILE), "services: {a: {image: x, volumes: [\"./:/x:${MODE:-ro}\"]}}").unwrap();
    let (reading, writing) = (reads(&[("MODE", "ro")]), reads(&[("MODE", "rw")]));
    assert_ne!(reading.hash, writing.hash, "that it may write there is shown");
}

#[test]
fn what_is_no_compose_file_is_refused() {
    for text in ["", "[]", "a: 1", "services: []", "services: {a: {image: x}, a: {image: y}}", "\u{0}", "services: {"] {
        let folder = folder(&[(FILE, text)]);
        assert!(matches!(read(&folder.path().join(FILE), &environment()), Err(ComposeError::Parse { .. })), "{text:?}");
    }
    assert!(matches!(read(Path::new("/dev/zero"), &environment()), Err(ComposeError::NoFile { .. })));
    assert!(matches!(read(Path::new("/nowhere/x.yml"), &environment()), Err(ComposeError::Read { .. })));
    let folder = folder(&[(FILE, "")]);
    fs::File::create(folder.path().join(FILE)).unwrap().set_len(10 << 20).unwrap();
    assert!(matches!(read(&folder.path().join(FILE), &environment()), Err(ComposeError::TooLarge { .. })));
}

#[test]
fn a_path_that_does_not_show_is_refused() {
    let folder = folder(&[
        ("\u{1b}[2Kgone/gordon-mcp.yml", "services: {a: {image: x}}"),
        ("data\u{202e}/x", ""),
        (FILE, "services: {a: {image: x, volumes: [\"./link:/x\"]}, b: {image: x}}"),
    ]);
    let refused = read(&folder.path().join("\u{1b}[2Kgone").join(FILE), &environment()).unwrap_err();
    assert!(matches!(&refused, ComposeError::Unshowable { shown } if shown.contains(" [2Kgone")), "{refused}");
    std::os::unix::fs::symlink(folder.path().join("data\u{202e}"), folder.path().join("link")).unwrap();
    let file = read_in(&folder);
    assert!(problems(&file).contains("has characters that do not show"), "{}", problems(&file));
    assert_eq!(file.definitions.len(), 1);
}

#[test]
fn a_command_line_gets_its_values_when_it_is_started() {
    let yaml = "services: {a: {image: x, command: [\"--token=${TOKEN}\"], environment: {TOKEN: \"1${TOKEN}\"}}}";
    let folder = folder(&[(FILE, yaml)]);
    let definition = &read_in(&folder).definitions[0];
    let entry = definition.without_secrets().entry();
    let value = |name: &str| {
        definition.sealed_values().find(|(known, _)| known == name).map(|(_, value)| value.to_owned().into()).unwrap()
    };
    let secrets = entry.secrets.iter().map(|secret| (secret.env.clone(), value(&secret.name))).collect();
    let inputs = Inputs { config: &serde_json::Value::Null, folder: folder.path(), secrets: &secrets };
    let Launch::Container(launch) = plan(&entry, &entry.runs[0], &inputs).unwrap() else { panic!("no container") };
    assert_eq!(launch.command.unwrap(), ["--token=outside-token"]);
    let environment: Vec<_> = launch.environment.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
    assert_eq!(environment, [("TOKEN", "1outside-token")], "what is for the command line is not in the environment");
}
