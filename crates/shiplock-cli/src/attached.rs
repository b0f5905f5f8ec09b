//! Staying with an upgrade until it ends or needs a person.
//!
//! The events come from the feed, which loses none; how far it is comes from the server each time something happened.
//! Leaving (Ctrl-C, `q`) never touches the upgrade. At a terminal keys change what is shown; the only two that act,
//! pause and continue, are asked about first.

use std::time::Duration;

use jiff::Timestamp;
use shiplock_api::client::{Client, FeedOptions};
use shiplock_api::rest::UpgradeView;
use shiplock_core::id::UpgradeId;
use shiplock_core::plan::Plan;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{Event, EventRecord, State};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::exit::Exit;
use crate::keyboard::Keyboard;
use crate::output::{Output, Progress};
use crate::render::event;
use crate::render::upgrade::{Foot, Frame, View, heartbeat, outcome};
use crate::result;
use crate::terminal::Picture;

/// How many events a reader who joins late is shown.
const NEWEST_EVENTS: u64 = 20;
/// How many events are kept for the picture.
const KEPT_EVENTS: usize = 200;
/// How many events the last frame shows.
const LAST_FRAME_EVENTS: usize = 12;
/// Events on their way from the feed.
const EVENTS_IN_FLIGHT: usize = 64;
/// How often ages are drawn anew.
const TICK: Duration = Duration::from_secs(1);
/// How often the state is asked for when no event comes: waits change without one.
const REFRESH: Duration = Duration::from_secs(3);
/// After this long without a line, plain progress says that it still waits, and for what.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// How long the last events may take to come after the state says that it is over.
const LAST_EVENTS_WITHIN: Duration = Duration::from_secs(5);

/// What is attached to, and how.
#[derive(Debug)]
pub(crate) struct Attachment<'a> {
    pub(crate) client: &'a Client,
    pub(crate) upgrade: &'a UpgradeId,
    pub(crate) output: &'a Output,
    /// Whether to stay while it is paused or blocked.
    pub(crate) stay: bool,
    /// The number of the event to begin after; none shows the newest ones.
    pub(crate) after: Option<u64>,
    /// Whether another program shows this view and says itself what Ctrl-C does.
    pub(crate) embedded: bool,
}

impl Attachment<'_> {
    /// Shows progress until the end, then the result.
    pub(crate) async fn run(self) -> Result<Exit, Problem> {
        let (output, id) = (self.output, self.upgrade);
        let ended = tokio::select! {
            biased;
            () = interrupted() => None,
            ended = self.follow() => ended?,
        };
        let Some((upgrade, exit)) = ended else {
            output.remark(&if output.language() == shiplock_core::language::Language::Zh {
                format!("\r已退出观看；升级 {id} 继续进行。再次观看：shiplock watch {id}；暂停：shiplock pause {id}")
            } else {
                format!("\rDetached; upgrade {id} goes on. Watch it again: shiplock watch {id}. Pause it: shiplock pause {id}")
            });
            output.result(result::Left { upgrade_id: id.clone(), detached: true }, |_| String::new());
            return Ok(Exit::Detached);
        };
        let drawn = output.progress() == Progress::Tty;
        output.result(result::OneUpgrade { upgrade: upgrade.clone(), detached: false }, |style| {
            // The last frame has said it, in the same place.
            if drawn { String::new() } else { outcome(&upgrade, style) }
        });
        Ok(exit)
    }

    /// Until it ends, or none when the person leaves.
    async fn follow(&self) -> Result<Option<(UpgradeView, Exit)>, Problem> {
        let (client, id) = (self.client, self.upgrade);
        let mut upgrade = client.upgrade(id).await?;
        let plan = self.plan().await?;
        let begin = self.after.unwrap_or_else(|| upgrade.len.saturating_sub(NEWEST_EVENTS));
        let mut keyboard = Keyboard::open().filter(|_| self.output.progress() == Progress::Tty && !self.embedded);
        let mut display = Display::new(self.output, plan, begin, self.embedded);
        let mut stay = self.stay;
        let mut events = self.feed(begin);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked_at = Instant::now();
        loop {
            display.keyboard = keyboard.is_some();
            display.draw(&upgrade);
            if let Some(exit) = Exit::of_upgrade(&upgrade).filter(|_| !stay || upgrade.state.is_terminal()) {
                display.last_events(&mut events, upgrade.len).await;
                display.finish(&upgrade);
                return Ok(Some((upgrade, exit)));
            }
            let mut moved = false;
            tokio::select! {
                event = events.recv(), if !display.feed_ended => {
                    display.take(event)?;
                    while let Ok(more) = events.try_recv() {
                        display.take(Some(more))?;
                    }
                    moved = true;
                }
                pressed = next_key(&mut keyboard) => match pressed {
                    None => keyboard = None,
                    Some(key) => match display.press(key, &upgrade) {
                        Pressed::Shown => {}
                        Pressed::Leave => return Ok(None),
                        Pressed::Act(control) => {
                            // Who pauses here wants to see it come to rest, and may go on from here.
                            stay = true;
                            display.told = self.act(control, &upgrade).await.err();
                            moved = true;
                        }
                    },
                },
                _ = tick.tick() => {}
            }
            if moved || asked_at.elapsed() >= REFRESH {
                match client.upgrade(id).await {
                    Ok(newer) => {
                        upgrade = newer;
                        display.answered();
                    }
                    // The feed goes on trying, and says when it gives up.
                    Err(problem) if problem.code == Code::ServerUnreachable => display.unanswered(),
                    Err(problem) => return Err(problem),
                }
                asked_at = Instant::now();
            }
            display.beat(&upgrade);
        }
    }

    /// Continues only what the person has seen: if more has happened since, the server refuses.
    async fn act(&self, control: Control, seen: &UpgradeView) -> Result<UpgradeView, Problem> {
        match control {
            Control::Pause => self.client.pause(self.upgrade, None).await,
            Control::Continue => self.client.continue_upgrade(self.upgrade, Some(seen.len)).await,
        }
    }

    /// The plan, out of the first event.
    async fn plan(&self) -> Result<Option<Plan>, Problem> {
        let first = self.client.events(self.upgrade, 0, 1).await?.items.into_iter().next();
        Ok(first.and_then(|record| match record.event {
            Event::Planned { plan, .. } => Some(*plan),
            _ => None,
        }))
    }

    /// The feed in a task of its own, so that nothing here can hold it up or cut it short.
    fn feed(&self, after: u64) -> mpsc::Receiver<Result<EventRecord, Problem>> {
        let (sender, receiver) = mpsc::channel(EVENTS_IN_FLIGHT);
        let mut feed = self.client.follow(self.upgrade, after, FeedOptions::default());
        tokio::spawn(async move {
            while let Some(event) = feed.next().await {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

/// What a key asks of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Pause,
    Continue,
}

impl Control {
    /// What can be asked of an upgrade in this state.
    fn offered(upgrade: &UpgradeView) -> Option<Self> {
        match upgrade.state {
            State::Running => Some(Self::Pause),
            State::Paused { .. } => Some(Self::Continue),
            _ => None,
        }
    }
}

/// What a key led to.
enum Pressed {
    /// The view changed, or nothing.
    Shown,
    Leave,
    Act(Control),
}

/// The next key; never where there is no keyboard.
async fn next_key(keyboard: &mut Option<Keyboard>) -> Option<char> {
    match keyboard {
        Some(keyboard) => keyboard.key().await,
        None => std::future::pending().await,
    }
}

/// What is shown, and where.
struct Display<'a> {
    output: &'a Output,
    plan: Option<Plan>,
    events: Vec<EventRecord>,
    /// The number of the newest event that was shown.
    shown: u64,
    feed_ended: bool,
    picture: Picture,
    unanswered_since: Option<Timestamp>,
    spoke_at: Instant,
    embedded: bool,
    /// Whether keys can be pressed.
    keyboard: bool,
    view: View,
    /// What the person was asked about and has not answered.
    asked: Option<Control>,
    /// Why the server did not do what a key asked for.
    told: Option<Problem>,
}

impl<'a> Display<'a> {
    fn new(output: &'a Output, plan: Option<Plan>, shown: u64, embedded: bool) -> Self {
        Self {
            output,
            plan,
            events: Vec::new(),
            shown,
            feed_ended: false,
            picture: Picture::default(),
            unanswered_since: None,
            spoke_at: Instant::now(),
            embedded,
            keyboard: false,
            view: View::Stages,
            asked: None,
            told: None,
        }
    }

    /// Takes a key. Nothing is asked of the server before the person has said yes to it.
    fn press(&mut self, key: char, upgrade: &UpgradeView) -> Pressed {
        self.told = None;
        if let Some(asked) = self.asked.take() {
            // What was asked about may not be offered any more.
            let agreed = key == 'y' && Control::offered(upgrade) == Some(asked);
            return if agreed { Pressed::Act(asked) } else { Pressed::Shown };
        }
        let toggled = |view| if self.view == view { View::Stages } else { view };
        match (key, Control::offered(upgrade)) {
            ('q', _) => return Pressed::Leave,
            ('e', _) => self.view = toggled(View::Events),
            ('n', _) => self.view = toggled(View::Nodes),
            ('p', Some(Control::Pause)) | ('c', Some(Control::Continue)) => self.asked = Control::offered(upgrade),
            _ => {}
        }
        Pressed::Shown
    }

    /// The line below: what is asked, or which keys there are.
    fn foot(&self, upgrade: &UpgradeView) -> Foot {
        let pick = |english, chinese| self.output.pick(english, chinese).to_owned();
        if !self.keyboard {
            return Foot::Keys(pick("Ctrl-C leaves; the upgrade goes on", "Ctrl-C 退出观看，升级继续进行"));
        }
        match self.asked {
            Some(Control::Pause) => Foot::Question(pick(
                "pause? nodes in work are finished first, no other is begun   y yes   any other key: no",
                "暂停？正在处理的节点会先完成，不再开始其他节点   y 是   其他键：否",
            )),
            Some(Control::Continue) => {
                Foot::Question(pick("continue?   y yes   any other key: no", "继续升级？   y 是   其他键：否"))
            }
            None => Foot::Keys(format!(
                "{}{}",
                match Control::offered(upgrade) {
                    Some(Control::Pause) => self.output.pick("p pause   ", "p 暂停   "),
                    Some(Control::Continue) => self.output.pick("c continue   ", "c 继续   "),
                    None => "",
                },
                self.output.pick(
                    "e events   n nodes   q leave (the upgrade goes on)",
                    "e 事件   n 节点   q 退出观看（升级继续进行）"
                )
            )),
        }
    }

    /// Takes what the feed gave: an event, its end, or why it gave up.
    fn take(&mut self, event: Option<Result<EventRecord, Problem>>) -> Result<(), Problem> {
        let Some(record) = event.transpose()? else {
            self.feed_ended = true;
            return Ok(());
        };
        self.shown = record.number;
        self.output.feed(result::Event { event: record.clone() });
        match self.output.progress() {
            Progress::Plain => self.speak(&event::line(&record, self.plan.as_ref(), &self.output.progress_style())),
            Progress::Json => self.output.say_json(result::Event { event: record.clone() }),
            Progress::Tty => {
                if self.events.len() >= KEPT_EVENTS {
                    self.events.remove(0);
                }
                self.events.push(record);
            }
            Progress::None => {}
        }
        Ok(())
    }

    /// Waits for the events that the state speaks of already. The state stands whether they come or not.
    async fn last_events(&mut self, events: &mut mpsc::Receiver<Result<EventRecord, Problem>>, len: u64) {
        let rest = async {
            while self.shown < len && !self.feed_ended {
                if self.take(events.recv().await).is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(LAST_EVENTS_WITHIN, rest).await;
    }

    fn draw(&mut self, upgrade: &UpgradeView) {
        if self.output.progress() == Progress::Tty {
            let lines = self.frame(upgrade, Picture::size(), &self.events, true);
            self.picture.draw(lines);
        }
    }

    /// Draws the last frame, whole: it stays, so nothing in it needs to be cut.
    fn finish(&mut self, upgrade: &UpgradeView) {
        if self.output.progress() == Progress::Tty {
            let newest = &self.events[self.events.len().saturating_sub(LAST_FRAME_EVENTS)..];
            let lines = self.frame(upgrade, (usize::MAX, usize::MAX), newest, false);
            self.picture.draw(lines);
        }
    }

    fn frame(&self, upgrade: &UpgradeView, size: (usize, usize), events: &[EventRecord], live: bool) -> Vec<String> {
        let style = self.output.progress_style();
        let notice = self.unanswered_since.map(|since| {
            let ago = style.since(since);
            if style.zh() {
                format!("服务端已 {ago}未应答，正在重试；升级不受影响")
            } else {
                format!("no answer from the server for {ago}, trying again; the upgrade does not depend on this view")
            }
        });
        let refused =
            self.told.as_ref().map(|problem| format!("{} {}", problem.code, problem.sentence(style.language)));
        let notice = notice.or(refused);
        let foot = (live && !self.embedded).then(|| self.foot(upgrade));
        let view = if live { self.view } else { View::Stages };
        Frame { upgrade, plan: self.plan.as_ref(), events, notice: notice.as_deref(), size, view, foot }.lines(&style)
    }

    fn unanswered(&mut self) {
        if self.unanswered_since.is_none() {
            self.unanswered_since = Some(Timestamp::now());
            if self.output.progress() == Progress::Plain {
                self.speak(self.output.pick("the server does not answer, trying again", "服务端未应答，正在重试"));
            }
        }
    }

    fn answered(&mut self) {
        if self.unanswered_since.take().is_some() && self.output.progress() == Progress::Plain {
            self.speak(self.output.pick("the server answers again", "服务端已恢复应答"));
        }
    }

    /// Says that it still waits, and for what, where nothing was said for long.
    fn beat(&mut self, upgrade: &UpgradeView) {
        if self.output.progress() == Progress::Plain && self.spoke_at.elapsed() >= HEARTBEAT {
            self.speak(&heartbeat(upgrade, &self.output.progress_style()));
        }
    }

    fn speak(&mut self, line: &str) {
        self.output.say(line);
        self.spoke_at = Instant::now();
    }
}

/// Returns when a person or the system wants this command to end.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        // Without the one the other still ends it.
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// The same, or when its terminal is closed.
pub(crate) async fn interrupted_or_left() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut left) = signal(SignalKind::hangup()) else { return interrupted().await };
    tokio::select! {
        () = interrupted() => {}
        _ = left.recv() => {}
    }
}
