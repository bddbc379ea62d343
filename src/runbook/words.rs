//! What the tables of the runbook say, in each language. `{}` is what a step works on.

use std::time::Duration;

use super::Language;
use crate::config::units::format_duration;

pub struct Words {
    pub heading: &'static str,
    pub here: &'static str,
    pub runner: &'static str,
    pub primary: &'static str,
    pub standby: &'static str,
    pub colon: &'static str,
    pub keep_rpo: &'static str,
    pub quarters: &'static str,
    pub provisions: &'static str,
    pub destroys: &'static str,
    pub restores: &'static str,
    pub compares: &'static str,
    pub makes_accounts: &'static str,
    pub opens: &'static str,
    pub fences: &'static str,
    pub unfences: &'static str,
    pub last_backup: &'static str,
    pub preserves: &'static str,
    pub shows_a_page: &'static str,
    pub looks_at_the_store: &'static str,
    pub applies: &'static str,
    pub asks: &'static str,
    pub switches: &'static str,
    pub waits_for_primary: &'static str,
    pub runs: &'static str,
    pub a_person: &'static str,
    /// Letters of units, and what they are called here; empty where letters will do.
    units: &'static [(char, &'static str)],
}

impl Words {
    pub fn of(language: Language) -> Self {
        match language {
            Language::English => ENGLISH,
            Language::Korean => KOREAN,
        }
    }

    /// `2h30m`, or `2시간 30분`.
    pub fn duration(&self, duration: Duration) -> String {
        let letters = format_duration(duration);
        if self.units.is_empty() {
            return letters;
        }
        let named = letters.chars().map(|letter| {
            let unit = self.units.iter().find(|(short, _)| *short == letter);
            unit.map_or_else(|| letter.to_string(), |(_, name)| format!("{name} "))
        });
        named.collect::<String>().trim_end().to_owned()
    }
}

const ENGLISH: Words = Words {
    heading: "| step | what it does | where | at most | after |",
    here: "your machine",
    runner: "runner",
    primary: "the primary",
    standby: "the standby",
    colon: ":",
    keep_rpo: "as often as the RPO needs",
    quarters: "January, April, July, October",
    provisions: "Terraform builds {}",
    destroys: "Terraform destroys {}",
    restores: "restores the backup into {}",
    compares: "compares {} with the backup, row by row",
    makes_accounts: "makes and tries the application's accounts at {}, and locks them",
    opens: "opens {}: from here it takes writes",
    fences: "fences {}: no more writes, and proven",
    unfences: "lifts the fence of {}",
    last_backup: "takes a last backup of {}",
    preserves: "keeps what {} has, under `preserved/`",
    shows_a_page: "puts the maintenance page up",
    looks_at_the_store: "looks whether backups can be read and written",
    applies: "Kubernetes takes {}",
    asks: "waits until {} is healthy",
    switches: "CloudFront {} switches every behaviour",
    waits_for_primary: "waits until the primary's other parts are ready",
    runs: "runs {}",
    a_person: "A PERSON: {}",
    units: &[],
};

const KOREAN: Words = Words {
    heading: "| 단계 | 내용 | 실행 위치 | 제한 시간 | 선행 단계 |",
    here: "작업자 PC",
    runner: "러너",
    primary: "주 센터",
    standby: "대기 센터",
    colon: ":",
    keep_rpo: "RPO를 지키는 데 필요한 주기",
    quarters: "1월, 4월, 7월, 10월",
    provisions: "Terraform으로 {} 생성함",
    destroys: "Terraform으로 {} 삭제함",
    restores: "백업을 {} DB에 복구함",
    compares: "{} DB를 백업과 행 단위로 대조함",
    makes_accounts: "{} DB에 애플리케이션 계정을 만들어 로그인을 시험하고 잠가 둠",
    opens: "{} DB를 개방함. 이 시점부터 쓰기를 받음",
    fences: "{} DB의 쓰기를 차단하고 차단 여부를 입증함",
    unfences: "{} DB의 쓰기 차단을 해제함",
    last_backup: "{} DB의 마지막 백업을 수행함",
    preserves: "{} DB의 현재 데이터를 `preserved/` 아래에 보존함",
    shows_a_page: "점검 페이지를 게시함",
    looks_at_the_store: "백업 저장소의 읽기와 쓰기를 확인함",
    applies: "Kubernetes에 {} 배포함",
    asks: "{} 정상 응답을 확인함",
    switches: "CloudFront {} 의 모든 경로를 전환함",
    waits_for_primary: "주 센터의 나머지 구성요소가 준비될 때까지 대기함",
    runs: "{} 실행함",
    a_person: "**담당자 확인**: {}",
    units: &[('d', "일"), ('h', "시간"), ('m', "분"), ('s', "초")],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_the_pages_language() {
        let two_and_a_half_hours = Duration::from_secs(9_000);
        assert_eq!(Words::of(Language::English).duration(two_and_a_half_hours), "2h30m");
        assert_eq!(Words::of(Language::Korean).duration(two_and_a_half_hours), "2시간 30분");
    }
}
