//! `hivectl push`: a component becomes an image in a registry, which functions can name.
//!
//! It talks to the registry and to no swarm. Who one is comes from flags or from what `docker login`
//! keeps; a password is read from standard input and never from the command line.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hive_manifests::function::MAX_COMPONENT_BYTES;
use hive_registry::{
    Answer, Ask, AskError, Credentials, Login, Lookup, MAX_CREDENTIALS_BYTES, Push, PushError,
    Reference, Secret, Wants,
};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use kube::Config;

use crate::artifact::size_text;
use crate::cluster::{Https, https};
use crate::failure::{Failure, chain};
use crate::session::Session;
use crate::world::World;

/// For one request, which sends 4 MiB at most: over a mobile link that takes a minute or two.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Longer ones are other files.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl push hello.wasm oci://ghcr.io/acme/hello:1.2
  hivectl push hello.wasm localhost:5000/hello
  echo \"$TOKEN\" | hivectl push hello.wasm ghcr.io/acme/hello:1.2 --username me --password-stdin

A function runs it with spec.artifact.oci; what is printed names the image for ever, whatever becomes of its tag.
Without --username, what `docker login` keeps in ~/.docker/config.json is used (or $DOCKER_CONFIG/config.json).
Registries on this machine are asked by HTTP, all others by HTTPS.")]
pub struct PushArguments {
    /// The component: a .wasm file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Where to put it: REGISTRY/REPOSITORY[:TAG]
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Who one is to the registry
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,

    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

pub async fn run(arguments: PushArguments, session: &mut Session<'_>) -> Result<(), Failure> {
    let image = &arguments.image;
    let reference: Reference = image
        .parse()
        .map_err(|error| Failure::usage(format_args!("{image:?} is not an image: {error}")))?;
    let component = read(&arguments.file)?;
    let size = component.len() as u64;
    let login = match arguments.username {
        Some(username) => Some(Login::Password {
            username,
            password: password(session.world)?,
        }),
        None => known(session.world, &reference)?,
    };
    let is_anonymous = login.is_none();
    let refused = |error: PushError| {
        let failure = Failure::new(format_args!(
            "cannot push {}: {error}",
            arguments.file.display()
        ));
        match &error {
            PushError::Ask(AskError::Unauthorized { .. }) if is_anonymous => failure.hint(format_args!(
                "nobody is signed in there: `docker login {}`, or --username and --password-stdin",
                reference.registry()
            )),
            _ => failure,
        }
    };
    let mut push = Push::new(reference.clone(), login, component).map_err(refused)?;
    let config = Config::new(Uri::from_static("https://registry.invalid"));
    let client = https(&config).map_err(|error| Failure::new(chain(&error)))?;
    while let Some(ask) = push.next() {
        let answer = send(&client, &ask).await?;
        push.take(answer).map_err(refused)?;
    }
    let note = format!("pushed {} to {reference}", size_text(size));
    session.world.note(note)?;
    session.world.line(push.pinned())?;
    Ok(())
}

fn read(path: &Path) -> Result<Bytes, Failure> {
    let failed = |error| Failure::new(format_args!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_COMPONENT_BYTES + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    match bytes.len() as u64 > MAX_COMPONENT_BYTES {
        true => Err(Failure::new(format_args!(
            "{} is larger than {}, the most that controllers take",
            path.display(),
            size_text(MAX_COMPONENT_BYTES)
        ))),
        false => Ok(bytes.into()),
    }
}

fn password(world: &mut World) -> Result<Secret, Failure> {
    let mut text = String::new();
    let mut input = (&mut world.input).take(MAX_PASSWORD_BYTES);
    input
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(format_args!("cannot read the password: {error}")))?;
    let text = text.trim_end_matches(['\r', '\n']);
    match text.is_empty() {
        true => Err(Failure::usage(
            "--password-stdin: nothing came on standard input",
        )),
        false => Ok(Secret::new(text)),
    }
}

/// Who `docker login` says one is.
fn known(world: &World, reference: &Reference) -> Result<Option<Login>, Failure> {
    let environment = &world.environment;
    let dir = environment.get("DOCKER_CONFIG").map(PathBuf::from);
    let Some(dir) = dir.or_else(|| Some(environment.home()?.join(".docker"))) else {
        return Ok(None);
    };
    let path = dir.join("config.json");
    let mut bytes = Vec::new();
    // One more is as good as too many.
    let most = MAX_CREDENTIALS_BYTES as u64 + 1;
    let read = File::open(&path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::new(format_args!(
                "cannot read {}: {error}",
                path.display()
            )));
        }
        Ok(_) => {}
    }
    let credentials = Credentials::parse(&bytes)
        .map_err(|error| Failure::new(format_args!("{}: {error}", path.display())))?;
    match credentials.find(reference) {
        Lookup::Login(login) => Ok(Some(login)),
        Lookup::None => Ok(None),
        Lookup::Helper(helper) => Err(Failure::new(format_args!(
            "{}: the credentials for {} are with the program docker-credential-{helper}, which is not asked",
            path.display(),
            reference.registry()
        ))
        .hint(format_args!(
            "echo {} | docker-credential-{helper} get    shows them, for --username and --password-stdin",
            Credentials::key_of(reference)
        ))),
    }
}

async fn send(client: &Https, ask: &Ask) -> Result<Answer, Failure> {
    let host = ask.url.host_str().unwrap_or_default();
    let failed = |why: String| Failure::new(format_args!("{host}: {why}"));
    let mut request = Request::builder()
        .method(ask.method.clone())
        .uri(ask.url.as_str())
        .body(Full::new(ask.body.clone()))
        .map_err(|error| failed(error.to_string()))?;
    *request.headers_mut() = ask.headers.clone();
    let Wants::Body(limit) = ask.wants else {
        unreachable!("nothing is fetched while something is pushed");
    };
    let asked = async {
        let response = client
            .request(request)
            .await
            .map_err(|e| failed(chain(&e)))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, limit).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => failed(AskError::too_large(ask).to_string()),
            false => failed(chain(&*error)),
        })?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    };
    tokio::time::timeout(TIMEOUT, asked)
        .await
        .map_err(|_| failed(format!("no answer within {TIMEOUT:?}")))?
}
