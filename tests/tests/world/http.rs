//! The least of an HTTP client: one question a connection, so that no test waits on a pool.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

const ANSWER_MAX: Duration = Duration::from_secs(10);

fn open(address: &str, path: &str, accept: &str) -> Result<TcpStream, String> {
    let fail = |error: std::io::Error| format!("http://{address}{path}: {error}");
    let at: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let mut stream = TcpStream::connect_timeout(&at, ANSWER_MAX).map_err(fail)?;
    stream.set_read_timeout(Some(ANSWER_MAX)).map_err(fail)?;
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).map_err(fail)?;
    Ok(stream)
}

/// Asks and leaves the answer to come, as a browser does with the event stream.
pub fn subscribe(address: &str, path: &str) -> TcpStream {
    let mut stream = open(address, path, "*/*").unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

/// The status and body of a GET.
pub fn get(address: &str, path: &str) -> Result<(u16, String), String> {
    get_as(address, path, "*/*")
}

/// The same of a GET that asks for a form.
pub fn get_as(address: &str, path: &str, accept: &str) -> Result<(u16, String), String> {
    let mut text = String::new();
    let mut stream = open(address, path, accept)?;
    stream.read_to_string(&mut text).map_err(|error| format!("{address}{path}: {error}"))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no head")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no status")?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let whole = if chunked { joined(body).ok_or("a chunk is cut off")? } else { body.to_owned() };
    Ok((status, whole))
}

/// The body of chunks, each after a line with its length.
fn joined(mut chunks: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (length, rest) = chunks.split_once("\r\n")?;
        let length = usize::from_str_radix(length.trim(), 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..length)?);
        chunks = rest.get(length..)?.strip_prefix("\r\n")?;
    }
}

/// The status and body of a POST of JSON.
pub fn post(address: &str, path: &str, body: &str) -> Result<(u16, String), String> {
    let fail = |error: std::io::Error| format!("http://{address}{path}: {error}");
    let mut stream = TcpStream::connect(address).map_err(fail)?;
    stream.set_read_timeout(Some(ANSWER_MAX)).map_err(fail)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).map_err(fail)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(fail)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no head")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no status")?;
    Ok((status, body.to_owned()))
}

/// The JSON of a GET that is answered with 200.
pub fn json(address: &str, path: &str) -> Result<Value, String> {
    let (status, body) = get(address, path)?;
    if status != 200 {
        return Err(format!("{path} answered {status}: {body}"));
    }
    serde_json::from_str(&body).map_err(|error| format!("{path}: {error}: {body}"))
}
