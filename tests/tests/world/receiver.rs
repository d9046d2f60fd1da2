//! A receiver of notifications that behaves well or badly, as told, and keeps what it was sent.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// Largest body read, bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// How one request is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// With this status, further header lines and body.
    Status(u16, &'static str, &'static str),
    /// Not at all: the connection stays open for as long as the receiver lives.
    Hang,
    /// Not at all: the connection is closed.
    Close,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its path.
    pub path: String,
    /// Its headers, lower case.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: String,
}

impl Request {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// What a signed webhook tells of: type and key.
    pub fn told(&self) -> (String, String) {
        let json = self.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&json["type"]), text(&json["data"]["alert"]["key"]))
    }
}

#[derive(Debug, Default)]
struct Kept {
    replies: VecDeque<Reply>,
    requests: Vec<Request>,
    hung: Vec<TcpStream>,
}

/// A receiver on loopback. It answers in the order told, and 200 `ok` when nothing is left to tell.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Its address, `127.0.0.1:port`.
    pub address: String,
    kept: Arc<Mutex<Kept>>,
}

impl Receiver {
    /// Listens until the test ends.
    pub fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let kept = Kept { replies: replies.into_iter().collect(), ..Kept::default() };
        let receiver = Self { address, kept: Arc::new(Mutex::new(kept)) };
        let own = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let own = own.clone();
                std::thread::spawn(move || own.serve(stream));
            }
        });
        receiver
    }

    /// What came so far.
    pub fn requests(&self) -> Vec<Request> {
        self.kept.lock().unwrap().requests.clone()
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let request = read(&stream)?;
        let mut kept = self.kept.lock().unwrap();
        kept.requests.push(request);
        let reply = kept.replies.pop_front().unwrap_or(Reply::Status(200, "", "ok"));
        match reply {
            Reply::Hang => kept.hung.push(stream),
            Reply::Close => {}
            Reply::Status(status, headers, body) => {
                drop(kept);
                let length = body.len();
                let text = format!(
                    "HTTP/1.1 {status} as told\r\n{headers}content-length: {length}\r\n\
                     connection: close\r\n\r\n{body}"
                );
                (&stream).write_all(text.as_bytes()).ok()?;
            }
        }
        Some(())
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length.min(BODY_BYTES_MAX)];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body: String::from_utf8(body).ok()? })
}
