//! The doors of real processes: tokens, certificates, revocation, renewal, and what never leaves.
#![allow(clippy::unwrap_used)]

mod world;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lens_model::{Arm, Incarnation, SeriesKey, Stage};
use lens_service::certs::{self, CertFiles, Subject};
use quinn::rustls::pki_types::pem::PemObject;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use quinn::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use quinn::rustls::{crypto::ring, version::TLS13};
use rustix::process::Signal;
use tokio::time::timeout;
use world::peer::{Peer, client, connect};
use world::process::run;
use world::{PATIENCE, Tally, World, holds, http, identity, recorder, slice, until};

fn key() -> SeriesKey {
    SeriesKey { slice: slice("rust"), stage: Stage::A, arm: Arm::Baseline }
}

/// The text of a path under the world's directory.
fn file(world: &World, name: &str) -> String {
    world.dir().join(name).display().to_string()
}

/// Makes a token as an operator would.
fn token(world: &World, role: &str) -> String {
    token_of(world, role, role)
}

/// The same of a person with this name.
fn token_of(world: &World, role: &str, name: &str) -> String {
    let tokens = file(world, "tokens");
    let made = run(&["token", "create", "--role", role, "--name", name, "--file", &tokens]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// One request with a token, over plain HTTP.
fn ask(world: &World, method: &str, path: &str, token: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(world.http()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(&mut stream, method, path, token)
}

fn exchange(
    stream: &mut (impl Read + Write),
    method: &str,
    path: &str,
    token: &str,
) -> (u16, String) {
    let bearer =
        if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n{bearer}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    // A TLS peer may end without saying so: what came is what counts.
    drop(stream.read_to_string(&mut text));
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}

/// A world whose aggregator asks for tokens.
fn guarded(more: &[(&str, &str)]) -> (World, String) {
    let mut world = World::bare();
    let admin = token(&world, "admin");
    let (tokens, audit, revoked) =
        (file(&world, "tokens"), file(&world, "audit"), file(&world, "revoked"));
    let mut settings = vec![
        ("auth.mode", "tokens"),
        ("auth.tokens", tokens.as_str()),
        ("audit.dir", audit.as_str()),
        ("identity.revoked", revoked.as_str()),
    ];
    settings.extend(more);
    world.start_aggregator(&settings);
    (world, admin)
}

fn verify(world: &World) -> (Option<i32>, String) {
    let dir = file(world, "audit");
    let done = run(&["audit", "verify", "--dir", &dir, "--json"]);
    (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned())
}

#[test]
fn a_token_is_good_as_soon_as_it_is_made_and_until_it_is_revoked() {
    let (mut world, admin) = guarded(&[]);
    assert_eq!(ask(&world, "GET", "/api/v1/agents", "").0, 401);
    assert_eq!(ask(&world, "GET", "/livez", "").0, 200);
    assert_eq!(ask(&world, "GET", "/api/v1/agents", &admin).0, 200);
    let viewer = token(&world, "viewer");
    until("the new token taken up", || {
        let status = ask(&world, "GET", "/api/v1/agents", &viewer).0;
        holds(status == 200, &status)
    });
    let (status, body) = ask(&world, "POST", "/api/v1/agents/host-1/revoke", &viewer);
    assert!(status == 403 && body.contains("needs the role admin"), "{status} {body}");
    let id = viewer.split('_').nth(1).unwrap();
    let tokens = file(&world, "tokens");
    assert!(run(&["token", "revoke", id, "--file", &tokens]).status.success());
    world.aggregator().signal(Signal::HUP);
    until("the revoked token refused", || {
        let status = ask(&world, "GET", "/api/v1/agents", &viewer).0;
        holds(status == 401, &status)
    });
    let listed = run(&["token", "list", "--file", &tokens, "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed[1]["id"], &listed[1]["revoked"]), (&id.into(), &true.into()));
    // A file others can read is not taken up, and that is seen.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(world.dir().join("tokens"), open).unwrap();
    world.aggregator().signal(Signal::HUP);
    until("the trouble shown", || {
        let (_, text) = ask(&world, "GET", "/readyz", "");
        holds(text.contains("\"tokens\""), &text)
    });
    assert_eq!(ask(&world, "GET", "/api/v1/agents", &admin).0, 200, "the old ones stay");
    let (_, metrics) = ask(&world, "GET", "/metrics", &admin);
    assert!(metrics.contains("lens_aggregator_problem{what=\"tokens\"} 1"), "{metrics}");
    world.aggregator().terminate();
    let (code, text) = verify(&world);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_kill_is_released_only_by_the_tokens_of_two_people_and_the_record_names_them() {
    let (world, _) = guarded(&[]);
    let made = |role, name| token_of(&world, role, name);
    let (ann, bob) = (made("breakglass", "ann"), made("releaser", "bob"));
    let eve = made("operator", "eve");
    until("the tokens taken up", || {
        let status = ask(&world, "GET", "/api/v1/agents", &eve).0;
        holds(status == 200, &status)
    });
    assert_eq!(ask(&world, "POST", "/canary/killswitch", &eve).0, 403);
    assert_eq!(ask(&world, "POST", "/canary/killswitch", &ann).0, 200);
    let release = |who: &str| ask(&world, "POST", "/canary/release-kill", who);
    assert_eq!(release(&eve).0, 403);
    for _ in 0..2 {
        let (status, body) = release(&ann);
        assert!(status == 202 && body.contains("one more person"), "{status} {body}");
    }
    let killed = || ask(&world, "GET", "/canary/status", &eve).1.contains("\"killed\":true");
    assert!(killed(), "one person alone released it");
    let (status, body) = release(&bob);
    assert!(status == 200 && body.contains("ann") && body.contains("bob"), "{status} {body}");
    assert!(!killed());
    let (code, text) = verify(&world);
    assert_eq!(code, Some(0), "{text}");
    let written =
        std::fs::read_dir(file(&world, "audit")).unwrap().map(|entry| entry.unwrap().path());
    let record: String = written.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let of = |verb: &str, who: &str| {
        record.lines().filter(|line| line.contains(verb) && line.contains(who)).count()
    };
    assert_eq!(
        (of("kill.engage", "ann"), of("kill.release", "ann"), of("kill.release", "bob")),
        (1, 2, 1),
        "{record}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_an_agent_closes_its_connection_and_keeps_it_out_over_a_restart() {
    let (mut world, admin) = guarded(&[]);
    let files = identity(&world.issue("host-1"));
    let (peer, _) = Peer::enter(world.quic(), &files, "host-1", Incarnation(1)).await;
    let (status, body) = ask(&world, "POST", "/api/v1/agents/host-1/revoke", &admin);
    assert_eq!(status, 200, "{body}");
    let ended = timeout(PATIENCE, peer.connection.closed()).await.unwrap();
    assert!(ended.to_string().contains("revoked"), "{ended}");
    let kept_out = async |world: &World| {
        let (_endpoint, connection) = connect(world.quic(), client(&files)).await.unwrap();
        timeout(PATIENCE, connection.closed()).await.unwrap().to_string()
    };
    assert!(kept_out(&world).await.contains("revoked"));
    let other = identity(&world.issue("host-2"));
    drop(Peer::enter(world.quic(), &other, "host-2", Incarnation(1)).await);

    world.aggregator().kill();
    let (tokens, audit, revoked) =
        (file(&world, "tokens"), file(&world, "audit"), file(&world, "revoked"));
    world.start_aggregator(&[
        ("auth.mode", "tokens"),
        ("auth.tokens", &tokens),
        ("audit.dir", &audit),
        ("identity.revoked", &revoked),
    ]);
    assert!(kept_out(&world).await.contains("revoked"), "a restart forgets nobody");
    assert_eq!(ask(&world, "POST", "/api/v1/agents/host-1/restore", &admin).0, 200);
    drop(Peer::enter(world.quic(), &files, "host-1", Incarnation(1)).await);
    world.aggregator().terminate();
    let (code, text) = verify(&world);
    assert!(code == Some(0) && text.contains("\"records\":2"), "{text}");

    // One byte, anywhere in it.
    let path = world.dir().join("audit/audit-000000000001.jsonl");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() / 3;
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(verify(&world).0, Some(1));
    bytes[at] ^= 1;
    let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
    std::fs::write(&path, &bytes[..=last]).unwrap();
    assert!(verify(&world).1.contains("end is missing"));
}

/// A client of the HTTPS door.
fn https(
    world: &World,
    files: Option<&CertFiles>,
    method: &str,
    path: &str,
) -> Result<(u16, String), String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(world.dir().join("ca.pem")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match files {
        Some(files) => {
            let chain = vec![CertificateDer::from_pem_file(&files.cert).unwrap()];
            let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(world.http()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(tls, stream);
    let answer = exchange(&mut stream, method, path, "");
    if answer.0 == 0 { Err("turned away in the handshake".into()) } else { Ok(answer) }
}

fn operator(world: &World, name: &str) -> CertFiles {
    let id = format!("spiffe://lens.test/operator/{name}").parse().unwrap();
    certs::issue(world.dir(), name, &Subject::Operator(id), 2, false).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_and_agents_each_have_a_door_and_neither_opens_the_others() {
    let mut world = World::bare();
    let (audit, revoked) = (file(&world, "audit"), file(&world, "revoked"));
    world.start_aggregator(&[
        ("auth.mode", "mtls"),
        ("auth.operators", "alice=admin auditor,victor=viewer"),
        ("audit.dir", &audit),
        ("identity.revoked", &revoked),
    ]);
    let (alice, victor, nobody) =
        (operator(&world, "alice"), operator(&world, "victor"), operator(&world, "nobody"));
    let agent = world.issue("host-1");
    let revoke = "/api/v1/agents/host-9/revoke";
    let (alice_, world_) = (alice.clone(), &world);
    tokio::task::block_in_place(|| {
        let ask = |files: Option<&CertFiles>, method, path| https(world_, files, method, path);
        assert_eq!(ask(None, "GET", "/livez").unwrap().0, 200);
        assert_eq!(ask(None, "GET", "/metrics").unwrap().0, 401);
        assert_eq!(ask(Some(&victor), "GET", "/metrics").unwrap().0, 200);
        assert_eq!(ask(Some(&victor), "POST", revoke).unwrap().0, 403);
        assert_eq!(ask(Some(&nobody), "GET", "/metrics").unwrap().0, 403, "no role, no look");
        assert_eq!(ask(Some(&alice_), "POST", revoke).unwrap().0, 200);
        for path in ["/livez", "/metrics", revoke] {
            assert!(ask(Some(&agent), "GET", path).is_err(), "an agent's certificate at {path}");
        }
        // Kept out by name, at once.
        let kept = std::fs::read_to_string(world_.dir().join("revoked")).unwrap();
        std::fs::write(world_.dir().join("revoked"), format!("{kept}operator victor\n")).unwrap();
        until("victor kept out", || {
            let status = ask(Some(&victor), "GET", "/metrics")?.0;
            holds(status == 401, &status)
        });
    });
    // The other way round: an operator's certificate at the agents' door.
    let (_endpoint, connection) = connect(world.quic(), client_of(&alice, &world)).await.unwrap();
    let ended = timeout(PATIENCE, connection.closed()).await.unwrap();
    assert!(ended.to_string().contains("names no agent"), "{ended}");
    drop(Peer::enter(world.quic(), &identity(&agent), "host-1", Incarnation(1)).await);
}

/// A QUIC client with any certificate, as no agent would be configured.
fn client_of(files: &CertFiles, world: &World) -> quinn::ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(world.dir().join("ca.pem")).unwrap()).unwrap();
    let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(&files.cert).unwrap()],
            PrivateKeyDer::from_pem_file(&files.key).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = vec![lens_wire::ALPN.to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    quinn::ClientConfig::new(Arc::new(tls))
}

#[test]
fn connections_end_at_their_age_and_nothing_is_lost() {
    let world = World::new(&[("quic.connection_age_max_s", "1")]);
    let mut agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    let counter = || {
        let (_, text) = http::get(world.http(), "/metrics").unwrap();
        let line =
            text.lines().find_map(|l| l.strip_prefix("lens_aggregator_connections_aged_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let mut recorded = 0;
    until("three connections aged", || {
        for _ in 0..10 {
            series.record(1_000_000);
            recorded += 1;
        }
        let aged = counter();
        holds(aged >= 3, &aged)
    });
    world.until_merged(&Tally::from([(key(), recorded)]));
    agent.process.terminate();
    let seen = world.seen("host-1").unwrap();
    assert_eq!(seen["samples"], recorded, "{seen}");
}

/// Puts another authority's certificate behind the one that is there.
fn bundle(world: &World, other: &World) {
    let both = [world, other].map(|w| std::fs::read_to_string(w.dir().join("ca.pem")).unwrap());
    std::fs::write(world.dir().join("bundle.pem"), both.concat()).unwrap();
}

#[test]
fn an_authority_is_replaced_while_agents_send_and_nothing_is_lost() {
    let (mut world, next) = (World::bare(), World::bare());
    bundle(&world, &next);
    let ca = file(&world, "bundle.pem");
    world.start_aggregator(&[("identity.ca", &ca), ("quic.connection_age_max_s", "1")]);
    let mut agent = world.agent("host-1", &[("identity.ca", &ca)]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    series.record(1_000_000);
    agent.until_connected(true);
    // The new authority's certificates take the place of the old ones, one side after the other.
    let replace = |name: &str, files: &CertFiles| {
        for (from, end) in [(&files.key, "key"), (&files.cert, "pem")] {
            let to = world.dir().join(format!("{name}.{end}"));
            let fresh = to.with_extension("fresh");
            std::fs::copy(from, &fresh).unwrap();
            std::fs::rename(&fresh, &to).unwrap();
        }
    };
    let renewed = next.issue("host-1");
    replace("host-1", &renewed);
    series.record(1_000_000);
    world.until_merged(&Tally::from([(key(), 2)]));
    let server = CertFiles {
        cert: next.dir().join("server.pem"),
        key: next.dir().join("server.key"),
        ca: next.dir().join("ca.pem"),
    };
    replace("server", &server);
    std::fs::copy(next.dir().join("ca.pem"), world.dir().join("bundle.pem")).unwrap();
    until("the new authority alone is in force", || {
        series.record(1_000_000);
        let old = identity(&world_issue(&world));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let kept_out = runtime.block_on(async {
            match connect(world.quic(), client(&old)).await {
                Ok((_endpoint, connection)) => {
                    timeout(Duration::from_millis(500), connection.closed()).await.is_ok()
                }
                Err(_) => true,
            }
        });
        holds(kept_out, &"an agent of the old authority is let in")
    });
    agent.until_acknowledged();
    agent.until_connected(true);
    agent.process.terminate();
    let seen = world.seen("host-1").unwrap();
    let total: u64 = world.merged().unwrap().values().sum();
    assert_eq!(seen["samples"], total, "{seen}");
    assert!(total >= 3);
}

/// A certificate of the old authority, made once.
fn world_issue(world: &World) -> CertFiles {
    let path = world.dir().join("left-behind.pem");
    if path.exists() {
        let name = |end: &str| world.dir().join(format!("left-behind.{end}"));
        return CertFiles {
            cert: name("pem"),
            key: name("key"),
            ca: world.dir().join("bundle.pem"),
        };
    }
    world.issue("left-behind")
}

#[test]
fn certificates_that_do_not_fit_leave_the_old_ones_and_are_seen() {
    let mut world = World::new(&[]);
    let good = std::fs::read(world.dir().join("server.pem")).unwrap();
    std::fs::write(world.dir().join("server.pem"), "junk").unwrap();
    until("the trouble shown", || {
        let (code, text) = http::get(world.http(), "/readyz")?;
        holds(code == 200 && text.contains("\"certificates\""), &text)
    });
    let mut agent = world.agent("host-1", &[]);
    agent.until_connected(true);
    agent.process.terminate();
    std::fs::write(world.dir().join("server.pem"), good).unwrap();
    world.aggregator().signal(Signal::HUP);
    until("the trouble gone", || {
        let (_, text) = http::get(world.http(), "/readyz")?;
        holds(!text.contains("\"certificates\""), &text)
    });
    let (_, metrics) = http::get(world.http(), "/metrics").unwrap();
    let left =
        metrics.lines().find_map(|l| l.strip_prefix("lens_aggregator_certificate_seconds_left "));
    let left: f64 = left.unwrap().parse().unwrap();
    assert!(left > 86_400.0 && left < 3.0 * 86_400.0, "{left}");
}

/// Every run of at least 24 characters of a secret's text that could give it away.
fn needles(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    lines.map(str::to_owned).filter(|line| line.len() >= 24).collect()
}

#[test]
fn no_secret_is_in_any_log_at_the_finest_level() {
    let world = World::bare();
    let admin = token(&world, "admin");
    world.issue("host-1");
    let (tokens, audit, store) =
        (file(&world, "tokens"), file(&world, "audit"), file(&world, "store"));
    let mut settings = world.identity_settings("server");
    for (key, value) in [
        ("store.dir", store.as_str()),
        ("quic.listen", "127.0.0.1:0"),
        ("http.listen", "127.0.0.1:0"),
        ("auth.mode", "tokens"),
        ("auth.tokens", tokens.as_str()),
        ("audit.dir", audit.as_str()),
    ] {
        settings.push((key.into(), value.into()));
    }
    let start = |name: &str, role: &str, settings: &[(String, String)]| {
        let mut command = world::process::program();
        command.env("RUST_LOG", "trace").args(["role", role]);
        for (key, value) in settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        world::Process::start(name, world.dir(), command)
    };
    let mut aggregator = start("traced-aggregator", "aggregator", &settings);
    let ready = aggregator.ready();
    let (quic, api) = (ready["quic"].as_str().unwrap(), ready["http"].as_str().unwrap());
    let mut settings = world.agent_settings("host-1");
    settings.push(("aggregator.endpoints".into(), quic.into()));
    let mut agent = start("traced-agent", "agent", &settings);
    let admin_at = agent.ready()["admin"].as_str().unwrap().to_owned();
    until("connected", || {
        let status = http::json(&admin_at, "/status")?;
        holds(status["connection"]["connected"] == true, &status["connection"])
    });
    let mut stream = TcpStream::connect(api).unwrap();
    assert_eq!(exchange(&mut stream, "POST", "/api/v1/tokens/reload", &admin).0, 200);
    let mut stream = TcpStream::connect(api).unwrap();
    let in_address = format!("/metrics?token={admin}");
    assert_eq!(exchange(&mut stream, "GET", &in_address, "").0, 400);
    agent.terminate();
    aggregator.terminate();

    let mut secrets = vec![admin.rsplit('_').next().unwrap().to_owned()];
    for key in ["server.key", "host-1.key", "ca.key", "audit/audit.key"] {
        secrets.extend(needles(&world.dir().join(key)));
    }
    assert!(secrets.len() >= 8, "{}", secrets.len());
    for process in [&aggregator, &agent] {
        let log = process.log();
        assert!(log.contains("TRACE") || log.contains("DEBUG"), "not traced");
        for secret in &secrets {
            assert!(!log.contains(secret.as_str()), "a secret is in a log");
        }
    }
    let status = std::fs::read_to_string(file(&world, "audit/audit-000000000001.jsonl")).unwrap();
    assert!(secrets.iter().all(|secret| !status.contains(secret.as_str())));
}

#[test]
fn an_agent_takes_up_a_renewed_certificate_and_keeps_the_old_one_when_it_does_not_fit() {
    let world = World::new(&[]);
    let mut agent = world.agent("host-1", &[]);
    agent.until_connected(true);
    let status = agent.status().unwrap();
    let left = status["certificate"]["seconds_left"].as_f64().unwrap();
    assert!(left > 86_400.0 && left < 3.0 * 86_400.0, "{status}");
    let good = std::fs::read(world.dir().join("host-1.pem")).unwrap();
    std::fs::write(world.dir().join("host-1.pem"), "junk").unwrap();
    until("the trouble shown", || {
        let certificate = agent.status()?["certificate"].clone();
        holds(certificate["problem"].is_string(), &certificate)
    });
    assert_eq!(agent.status().unwrap()["connection"]["connected"], true);
    std::fs::write(world.dir().join("host-1.pem"), good).unwrap();
    let id = "spiffe://lens.test/agent/host-1".parse().unwrap();
    certs::issue(world.dir(), "host-1", &Subject::Agent(id), 30, true).unwrap();
    agent.process.signal(Signal::HUP);
    until("the new one in force", || {
        let certificate = agent.status()?["certificate"].clone();
        let left = certificate["seconds_left"].as_f64().unwrap_or(0.0);
        holds(left > 20.0 * 86_400.0 && certificate["problem"].is_null(), &certificate)
    });
    until("seen at the other side", || {
        let seen = world.seen("host-1")?;
        let own = agent.status()?["certificate"]["expires"].clone();
        holds(seen["certificate_expires"] == own, &seen)
    });
    agent.process.terminate();
}
