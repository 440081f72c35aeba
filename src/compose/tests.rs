use super::*;

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
    assert_eq!(fs.command.as_deref(), Some(&["/rootfs".to_owned()][..]));
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
    environment: [A=1, "B=${TOKEN}", TOKEN, NOWHERE]
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
    assert_eq!(all.entrypoint.as_deref().unwrap(), ["/bin/server", "--flag", "two words"]);
    assert_eq!(all.command.as_deref().unwrap(), ["serve", "none", "3"]);
    let pairs = |map: &Environment| map.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    assert_eq!(pairs(&all.environment), ["ON=true", "PLAIN=$5", "PORT=8080"], "a key of its own replaces the anchor's");
    assert_eq!(pairs(&all.secrets), ["LEVEL=debug", "ONE=1", "TOKEN=outside-token", "URL=https://example.org/x"]);
    assert_eq!(all.binds.len(), 2);
    assert!(all.binds.iter().all(|bind| bind.read_only));
    assert_eq!(all.volumes, ["notes:/notes"]);
    assert_eq!((all.user.as_deref(), all.working_dir.as_deref()), (Some("1000:1000"), Some("/work")));
    assert_eq!((all.memory_bytes, all.nano_cpus, all.disable_network), (Some(512 << 20), Some(500_000_000), true));
    assert!(all.shown.contains("image example/all:${TAG:-latest}"), "{}", all.shown);
    assert!(all.shown.ends_with("is given the values of HOST, LEVEL, ONE, PLAIN, TAG, TOKEN"), "{}", all.shown);
    assert!(!format!("{all:?}{}", all.shown).contains("outside-token"));
    assert_eq!(pairs(&listed.environment), ["A=1"]);
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
