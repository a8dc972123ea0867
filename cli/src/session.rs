//! One command's run: the world it prints to, the flags given before it, the swarm it talks to.
//!
//! The kubeconfig is read and the swarm's clients are made when a command first asks for them, so
//! that `explain` or `completion` work without either.

use std::path::PathBuf;
use std::sync::Arc;

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::arguments::Globals;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::kubeconfig::{self, KubeconfigError};
use crate::world::World;

pub struct Session<'w> {
    pub world: &'w mut World,
    pub globals: Globals,
    connected: Option<Connected>,
}

#[derive(Clone)]
struct Connected {
    cluster: Arc<Cluster>,
    namespace: String,
    /// DER certificates of the swarm's CA.
    ca: Option<Vec<Vec<u8>>>,
}

impl<'w> Session<'w> {
    pub fn new(world: &'w mut World, globals: Globals) -> Self {
        Self {
            world,
            globals,
            connected: None,
        }
    }

    /// The files of the kubeconfig and what they say together.
    pub fn kubeconfig(&self) -> Result<(Vec<PathBuf>, Kubeconfig), KubeconfigError> {
        let paths =
            kubeconfig::locate(self.globals.kubeconfig.as_deref(), &self.world.environment)?;
        let kubeconfig = kubeconfig::read(&paths)?;
        Ok((paths, kubeconfig))
    }

    pub async fn cluster(&mut self) -> Result<Arc<Cluster>, Failure> {
        Ok(self.connect().await?.cluster)
    }

    /// The namespace that namespaced commands act in.
    pub async fn namespace(&mut self) -> Result<String, Failure> {
        if let Some(namespace) = &self.globals.namespace {
            return Ok(namespace.clone());
        }
        Ok(self.connect().await?.namespace)
    }

    /// The CA certificate that the kubeconfig trusts, which is the swarm's own.
    pub async fn ca(&mut self) -> Result<Vec<u8>, Failure> {
        self.connect()
            .await?
            .ca
            .and_then(|certificates| certificates.into_iter().next())
            .ok_or_else(|| {
                Failure::new("the kubeconfig's cluster has no certificate-authority-data")
                    .hint("a join token pins the swarm's CA: use a kubeconfig that carries it, such as the one `hive up` writes")
            })
    }

    /// `--as` and `--as-group`: as the kubeconfig could say too.
    fn impersonate(&self, config: &mut kube::Config) -> Result<(), Failure> {
        let globals = &self.globals;
        if globals.as_user.is_none() && !globals.as_groups.is_empty() {
            return Err(Failure::usage("--as-group needs --as"));
        }
        if let Some(user) = &globals.as_user {
            config.auth_info.impersonate = Some(user.clone());
            config.auth_info.impersonate_groups = Some(globals.as_groups.clone());
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<Connected, Failure> {
        if let Some(connected) = &self.connected {
            return Ok(connected.clone());
        }
        let given = match self.globals.kubeconfig {
            Some(_) => None,
            None => kubeconfig::environment::read(&self.world.environment)?,
        };
        let kubeconfig = match given {
            Some(kubeconfig) => kubeconfig,
            None => self.kubeconfig()?.1,
        };
        let named = kubeconfig::context(&kubeconfig, self.globals.context.as_deref())?;
        let context_name = named.name.clone();
        let context = named.context.clone().unwrap_or_default();
        let cluster_name = self.globals.cluster.as_deref().unwrap_or(&context.cluster);
        let entry = kubeconfig::cluster(&kubeconfig, cluster_name)?;
        let servers = kubeconfig::servers(entry);
        if servers.is_empty() {
            return Err(KubeconfigError::NoServer(cluster_name.to_owned()).into());
        }
        let options = KubeConfigOptions {
            context: Some(context_name),
            cluster: self.globals.cluster.clone(),
            user: None,
        };
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(KubeconfigError::Unusable)?;
        self.impersonate(&mut config)?;
        let cluster = Cluster::new(
            &config,
            &servers,
            self.globals.request_timeout(),
            self.globals.verbose,
        )?;
        let connected = Connected {
            cluster: Arc::new(cluster),
            namespace: config.default_namespace,
            ca: config.root_cert,
        };
        self.connected = Some(connected.clone());
        Ok(connected)
    }
}
