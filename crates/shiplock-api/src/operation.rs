//! The requests of REST v1: one list, from which the server makes its routes and [`openapi`](crate) its paths.
//!
//! A route that is not in it cannot be served: the server's router is a match over this list.

/// The path under which all of REST v1 lies.
pub const ROOT: &str = "/api/v1";

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Makes, or acts.
    Post,
    /// Changes.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// Its word in HTTP.
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

macro_rules! operations {
    ($($name:ident $id:literal $method:ident $path:literal $summary:literal)*) => {
        /// A request of REST v1.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Operation {$(
            #[doc = $summary]
            $name,
        )*}
        impl Operation {
            /// Every request.
            pub const ALL: &'static [Operation] = &[$(Operation::$name,)*];
            /// Its name for generated clients.
            pub fn id(self) -> &'static str { match self {$(Self::$name => $id,)*} }
            /// Its method.
            pub fn method(self) -> Method { match self {$(Self::$name => Method::$method,)*} }
            /// Its path below [`ROOT`], with `{parameters}`.
            pub fn path(self) -> &'static str { match self {$(Self::$name => $path,)*} }
            /// What it does, one sentence.
            pub fn summary(self) -> &'static str { match self {$(Self::$name => $summary,)*} }
        }
    };
}

operations! {
    ShowServer "showServer" Get "/server" "Tells what the server says of itself."
    ListVersions "listVersions" Get "/versions" "Lists the versions of the catalogue, newest first, and which may follow which."
    ListClusters "listClusters" Get "/clusters" "Lists the registered clusters."
    AddCluster "addCluster" Post "/clusters" "Registers a cluster, after it was reached and its identity read."
    ShowCluster "showCluster" Get "/clusters/{name}" "Shows a cluster as it is now."
    ChangeCluster "changeCluster" Patch "/clusters/{name}" "Changes the credentials or the mirror of a cluster."
    RemoveCluster "removeCluster" Delete "/clusters/{name}" "Forgets a cluster; nothing in it is touched."
    ListAgents "listAgents" Get "/clusters/{name}/agents" "Lists the enrolled agents of a cluster."
    RemoveAgent "removeAgent" Delete "/clusters/{name}/agents/{node}" "Forgets an agent: its certificate is refused from now on."
    MakeJoinToken "makeJoinToken" Post "/clusters/{name}/join-tokens" "Makes a one-time token for an agent."
    ShowJoinInstructions "showJoinInstructions" Get "/clusters/{name}/join-instructions" "Tells how a new node joins, at the version of the control plane."
    RunChecks "runChecks" Post "/clusters/{name}/checks" "Runs the pre-check and keeps its report; changes nothing in the cluster."
    ListReports "listReports" Get "/clusters/{name}/checks" "Lists the reports of a cluster, newest first."
    ShowReport "showReport" Get "/checks/{id}" "Shows a report beside the one before it."
    AddAcceptance "addAcceptance" Post "/clusters/{name}/acceptances" "Lets findings of one check pass, with a reason and an end."
    ListAcceptances "listAcceptances" Get "/clusters/{name}/acceptances" "Lists what lets findings of a cluster pass."
    RemoveAcceptance "removeAcceptance" Delete "/clusters/{name}/acceptances/{id}" "Takes an acceptance back."
    ListBackups "listBackups" Get "/backups" "Lists the backups of etcd that the server keeps, newest first."
    ShowBackup "showBackup" Get "/backups/{id}" "Shows a backup, by what its file says of itself."
    VerifyBackup "verifyBackup" Post "/backups/{id}/verify" "Reads a backup back: all of it opens and has its SHA-256."
    ReadBackup "readBackup" Get "/backups/{id}/content" "Gives the snapshot itself, for `etcdutl snapshot restore`."
    MakePlan "makePlan" Post "/clusters/{name}/plans" "Makes a plan; touches nothing."
    ShowPlan "showPlan" Get "/plans/{id}" "Shows a plan that was kept."
    ListUpgrades "listUpgrades" Get "/upgrades" "Lists upgrades, newest first."
    CreateUpgrade "createUpgrade" Post "/upgrades" "Accepts a plan and begins to execute it."
    ShowUpgrade "showUpgrade" Get "/upgrades/{id}" "Shows where an upgrade stands and what it waits for."
    ChangeUpgrade "changeUpgrade" Patch "/upgrades/{id}" "Changes the bound on batches, from the next batch on."
    PauseUpgrade "pauseUpgrade" Post "/upgrades/{id}/pause" "Pauses: what has started is finished, nothing new starts."
    ContinueUpgrade "continueUpgrade" Post "/upgrades/{id}/continue" "Continues a paused or blocked upgrade."
    CancelUpgrade "cancelUpgrade" Post "/upgrades/{id}/cancel" "Cancels: gives back every cordon of ours and ends."
    RollBackUpgrade "rollBackUpgrade" Post "/upgrades/{id}/rollback" "Makes the plan that takes an upgrade back; touches nothing."
    ListUpgradeEvents "listUpgradeEvents" Get "/upgrades/{id}/events" "Gives the events of an upgrade, in pages or as a stream."
    ListEvents "listEvents" Get "/events" "Gives the events of all upgrades, in pages or as a stream."
}
