//! Both ends with a client certificate in place of password and key.

use std::{path::Path, process::Command};

use super::{config, fail, refused, soon};
use crate::support::{Jailgate, Lapi, Origin};

/// A throw-away authority, a certificate for LAPI and one for jailgate.
fn certificates(dir: &Path) {
    let script = r#"set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem \
    -days 2 -subj /CN=ca -addext basicConstraints=critical,CA:TRUE
sign() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2"
    printf 'extendedKeyUsage=%s\nsubjectAltName=%s\n' "$3" "$4" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -out "$1.pem" -days 2 -extfile "$1.ext"
}
sign lapi /CN=lapi serverAuth IP:127.0.0.1
sign gate /OU=jailgate/CN=gate clientAuth DNS:gate"#;
    let output = Command::new("bash")
        .arg("-c")
        .arg(script)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_client_certificate_serves_for_both() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let server = "tls: {cert_file: DIR/lapi.pem, key_file: DIR/lapi.key, ca_cert_path: DIR/ca.pem, \
                  client_verification: VerifyClientCertIfGiven, agents_allowed_ou: [jailgate], \
                  bouncers_allowed_ou: [jailgate]}";
    let (lapi, origin) = (Lapi::in_dir(dir, "", server), Origin::start());
    lapi.cscli(&["decisions", "add", "--ip", "203.0.113.1"]);
    let file = |name: &str| lapi.path().join(name).display().to_string();
    let crowdsec = format!(
        "crowdsec:\n  url: \"{}\"\n  publish: {{}}\n  subscribe: {{ interval: 1s }}\n  \
         tls: {{ certFile: {}, keyFile: {}, caFile: {} }}\n",
        lapi.url(),
        file("gate.pem"),
        file("gate.key"),
        file("ca.pem"),
    );
    let jailgate = Jailgate::run(&config(&origin, &crowdsec));
    soon("the first pull", || refused(&jailgate, "203.0.113.1"));
    fail(&jailgate, "203.0.113.2");
    let published = || {
        lapi.cscli(&["decisions", "list", "-a", "-o", "raw"])
            .contains("203.0.113.2")
    };
    soon("published", published);
}
