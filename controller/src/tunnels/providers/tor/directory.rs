//! Arti's directory of the network, kept from ending this process.
//!
//! Arti leaves its process when the network begins to require what this version of it cannot. A controller does more
//! than that, so the news is withheld. What is required is still looked at each time that Arti starts, by what it
//! remembers: then it refuses to start, and tunnels say why.

use std::future;
use std::sync::Arc;
use std::time::SystemTime;

use arti_client::{DirProviderBuilder, ErrorDetail};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tor_circmgr::CircMgr;
use tor_config::{Reconfigure, ReconfigureError};
use tor_dirmgr::{DirBootstrapStatus, DirMgr, DirMgrConfig, DirMgrStore, DirProvider};
use tor_netdir::params::NetParameters;
use tor_netdir::{DirEvent, NetDir, NetDirProvider, Timeliness};
use tor_netdoc::doc::netstatus::ProtoStatuses;
use tor_rtcompat::Runtime;
use tor_rtcompat::scheduler::TaskHandle;

/// Makes directories for Arti.
pub struct Directories;

impl<R: Runtime> DirProviderBuilder<R> for Directories {
    fn build(
        &self,
        runtime: R,
        store: DirMgrStore<R>,
        circmgr: Arc<CircMgr<R>>,
        config: DirMgrConfig,
    ) -> arti_client::Result<Arc<dyn DirProvider + 'static>> {
        let directory = DirMgr::create_unbootstrapped(config, runtime, store, circmgr)
            .map_err(ErrorDetail::DirMgrSetup)?;
        Ok(Arc::new(Directory(directory)))
    }
}

/// Arti's own, without the news of what is required.
struct Directory<R: Runtime>(Arc<DirMgr<R>>);

impl<R: Runtime> NetDirProvider for Directory<R> {
    fn netdir(&self, timeliness: Timeliness) -> tor_netdir::Result<Arc<NetDir>> {
        NetDirProvider::netdir(&self.0, timeliness)
    }

    fn events(&self) -> BoxStream<'static, DirEvent> {
        NetDirProvider::events(&self.0)
            .filter(|event| future::ready(*event != DirEvent::NewProtocolRecommendation))
            .boxed()
    }

    fn params(&self) -> Arc<dyn AsRef<NetParameters>> {
        NetDirProvider::params(&self.0)
    }

    fn protocol_statuses(&self) -> Option<(SystemTime, Arc<ProtoStatuses>)> {
        NetDirProvider::protocol_statuses(&self.0)
    }
}

#[async_trait]
impl<R: Runtime> DirProvider for Directory<R> {
    fn reconfigure(
        &self,
        new_config: &DirMgrConfig,
        how: Reconfigure,
    ) -> Result<(), ReconfigureError> {
        DirProvider::reconfigure(&self.0, new_config, how)
    }

    async fn bootstrap(&self) -> Result<(), tor_dirmgr::Error> {
        DirProvider::bootstrap(&self.0).await
    }

    fn bootstrap_events(&self) -> BoxStream<'static, DirBootstrapStatus> {
        DirProvider::bootstrap_events(&self.0)
    }

    fn download_task_handle(&self) -> Option<TaskHandle> {
        DirProvider::download_task_handle(&self.0)
    }
}
