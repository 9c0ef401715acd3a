"""Write the two sample corpora: Korean medical texts, labelled Disease, Drug, Procedure and Biomarker.

    python data/sample/make_sample.py                       # the files beside this script, as they are committed
    python data/sample/make_sample.py --train 100000 --output_dir outputs/large

`{train,validation,test}.jsonl` hold sentences with entities. The files of the same names in `tasks/` hold documents of
one to three sentences for all four tasks of GLiNER2: entities, classifications, relations and structures. An empty list
of relations or structures says that there are none.

Every sentence is made from a template written for this project; no patient and no published text stands behind it.
Names are kept apart: a third of each label's names occurs in the test (or validation) sentences alone, and templates
mention names in passing that are no entity there (a leaflet about a disease, a device), so that a dictionary of the
training mentions cannot score well.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

DESCRIPTIONS = {
    "Disease": "질병과 증상",
    "Drug": "약물 성분",
    "Procedure": "검사와 시술",
    "Biomarker": "검사 수치",
}

NAMES = {
    "Disease": """당뇨병 고혈압 폐렴 천식 위염 위궤양 간경변 B형간염 심부전 심근경색 협심증 심방세동 뇌경색 뇌출혈 치매 파킨슨병
    뇌전증 편두통 우울증 불안장애 불면증 갑상선기능저하증 갑상선기능항진증 골다공증 류마티스관절염 골관절염 통풍 요추간판탈출증
    척추관협착증 만성신부전 신우신염 방광염 요로결석 전립선비대증 철결핍성_빈혈 재생불량성_빈혈 급성골수성백혈병 림프종 다발골수종
    유방암 비소세포폐암 위암 대장암 췌장암 간세포암 갑상선암 전립선암 자궁경부암 난소암 담낭염 담석증 급성췌장염 충수염 크론병
    궤양성_대장염 과민성_장증후군 역류성_식도염 만성폐쇄성폐질환 폐결핵 기관지염 알레르기_비염 부비동염 중이염 녹내장 백내장
    황반변성 아토피_피부염 건선 대상포진 두드러기 패혈증 요로감염 탈수 저혈당 이상지질혈증 지방간 섬망 실신 흉통 호흡곤란 발열
    복통 어지럼증 두통 구토 설사 부종 황달 객혈 혈뇨 COVID-19 ARDS 심부정맥혈전증 폐색전증 강직척추염 전신홍반루푸스 쿠싱증후군
    다낭난소증후군 자궁내막증 수면무호흡증 제2형_당뇨병 급성_신손상 대동맥판협착증 봉와직염 뇌수막염 간부전 호흡부전 심낭염
    심내막염 심근염 확장성_심근병증 대동맥박리 동맥경화증 말초동맥질환 정맥류 혈우병 혈소판감소증 호중구감소증 골수이형성증후군
    악성_흑색종 식도암 담도암 신세포암 방광암 뇌종양 수막종 부신부전 요붕증 저나트륨혈증 고칼륨혈증 대사성_산증 신증후군 사구체신염
    수신증 요실금 골반염 자궁근종 전자간증 인플루엔자 수두 말라리아 여드름 욕창 골절 회전근개파열 족저근막염 수근관증후군 안면마비
    삼차신경통 다발성_경화증 중증근무력증 조현병 양극성_장애 공황장애 알코올_의존증""",
    "Drug": """인슐린 메트포르민 아스피린 클로피도그렐 와파린 아토르바스타틴 로수바스타틴 암로디핀 발사르탄 로사르탄 텔미사르탄
    비소프롤롤 카르베딜롤 푸로세미드 스피로노락톤 디곡신 아미오다론 헤파린 에녹사파린 아픽사반 리바록사반 오메프라졸 에스오메프라졸
    판토프라졸 파모티딘 아목시실린 세프트리악손 레보플록사신 아지트로마이신 반코마이신 메로페넴 아세트아미노펜 이부프로펜 셀레콕시브
    트라마돌 모르핀 펜타닐 프레드니솔론 덱사메타손 메토트렉세이트 하이드록시클로로퀸 아달리무맙 리툭시맙 트라스투주맙 펨브롤리주맙
    니볼루맙 베바시주맙 오시머티닙 게피티닙 이마티닙 레날리도마이드 보르테조밉 시스플라틴 파클리탁셀 도세탁셀 카페시타빈 레보티록신
    메티마졸 알렌드론산 졸레드론산 데노수맙 콜히친 알로푸리놀 페북소스타트 도네페질 레보도파 레비티라세탐 발프로산 프레가발린
    가바펜틴 에스시탈로프람 졸피뎀 쿠에티아핀 살부타몰 몬테루카스트 티오트로피움 탐스로신 피나스테리드 테노포비르 엔테카비르
    오셀타미비르 엠파글리플로진 시타글립틴 세마글루타이드 metformin pembrolizumab warfarin tacrolimus apixaban Ceftriaxone
    Dexamethasone Rituximab 5-FU MTX 니페디핀 딜티아젬 에날라프릴 라미프릴 하이드로클로로티아지드 에제티미브 페노피브레이트
    다파글리플로진 글리메피리드 피오글리타존 리나글립틴 둘라글루타이드 티카그렐러 프라수그렐 다비가트란 란소프라졸 레바미피드
    돔페리돈 세파클러 시프로플록사신 플루코나졸 발라시클로비르 나프록센 멜록시캄 옥시코돈 아자티오프린 사이클로스포린 토실리주맙
    엘로티닙 수니티닙 소라페닙 옥살리플라틴 이리노테칸 젬시타빈 페메트렉시드 타목시펜 레트로졸 리세드론산 메만틴 토피라메이트
    라모트리진 설트랄린 둘록세틴 아리피프라졸 올란자핀 로라제팜 부데소니드 포르모테롤 라타노프로스트""",
    "Procedure": """복부_CT 흉부_CT 뇌_MRI 척추_MRI PET-CT 심전도 심초음파 관상동맥조영술 경피적_관상동맥중재술 위내시경 대장내시경
    점막하박리술 기관지내시경 조직검사 간생검 골수검사 골밀도검사 폐기능검사 흉부_X선 복부_초음파 갑상선_초음파 유방촬영술 뇌파검사
    요추천자 혈액투석 복막투석 수혈 항암화학요법 방사선치료 조혈모세포이식 신장이식 간이식 위절제술 복강경_담낭절제술 충수절제술
    유방절제술 갑상선절제술 전립선절제술 인공관절치환술 슬관절_전치환술 척추유합술 신경차단술 백내장_수술 제왕절개술 기관절개술
    기관삽관 중심정맥관_삽입술 흉관삽입술 심박동기_삽입술 관상동맥우회술 체외충격파쇄석술 고주파절제술 물리치료 재활치료
    수면다원검사 피부반응검사 ERCP EGD TAVI 광선치료 산소치료 세침흡인검사 자궁경부세포검사 24시간_활동심전도 운동부하검사
    초음파내시경 캡슐내시경 뇌혈관조영술 폐절제술 간절제술 대장절제술 자궁절제술 신절제술 방광경검사 관절경수술 추간판제거술 위루술
    담도배액술 흉강천자 복수천자 혈장교환술 고압산소치료 인지행동치료 작업치료 도수치료 피부이식술 혈관성형술 스텐트_삽입술 색전술
    경동맥_초음파 골스캔 심장_MRI 골반_CT 유발전위검사 근전도검사 청력검사 안저검사 시야검사 요역동학검사 혈액배양검사 객담검사""",
    "Biomarker": """HbA1c 당화혈색소 공복혈당 혈당 LDL_콜레스테롤 총콜레스테롤 중성지방 HDL 혈청_크레아티닌 eGFR 사구체여과율 BUN AST
    ALT 총빌리루빈 알부민 CRP C-반응단백 ESR 백혈구_수 혈소판_수 혈색소 Hb 페리틴 트로포닌 Troponin_I NT-proBNP BNP D-dimer INR
    TSH Free_T4 PSA CEA CA_19-9 CA-125 AFP 요산 나트륨 칼륨 칼슘 젖산 프로칼시토닌 아밀라아제 리파아제 요단백 HER2 EGFR PD-L1
    BRCA1 HBV_DNA 비타민_D 호모시스테인 산소포화도 호산구_수 피브리노겐
    LDH CK-MB TIBC 마그네슘 암모니아 GGT ALP C-peptide IgE 류마티스인자 항CCP항체 미세알부민 코르티솔 프로락틴 엽산 비타민_B12
    HCV_RNA Ki-67 KRAS ROS1 BRAF FSH hCG CA_15-3 NSE 시스타틴_C PaO2 중탄산염 망상적혈구 간섬유화_수치 잔뇨량""",
}

# Korean medical names are largely composed, and so are many of these: organ and suffix, course and disease.
ORGANS = [
    "간",
    "위",
    "폐",
    "신장",
    "대장",
    "갑상선",
    "전립선",
    "방광",
    "난소",
    "자궁",
    "췌장",
    "담낭",
    "식도",
    "후두",
    "비장",
    "부신",
    "고환",
    "소장",
    "직장",
]
COMPOSED = {
    "Disease": [
        *(organ + suffix for organ in ORGANS for suffix in ("암", "염", "낭종", "출혈", "농양", "결핵", "종양")),
        *(
            f"{course} {name}"
            for course in ("급성", "만성", "재발성")
            for name in ["폐렴", "위염", "기관지염", "두통", "요통", "비염"]
        ),
    ],
    "Procedure": [
        organ + suffix for organ in ORGANS for suffix in ("절제술", " 초음파", " CT", " MRI", "생검", "이식술")
    ],
    "Biomarker": [
        f"{fluid} {name}"
        for fluid in ("혈청", "소변", "혈중")
        for name in ["나트륨", "칼륨", "칼슘", "요산", "포도당", "단백", "코르티솔"]
    ],
}

# A slot is `{Label}` or `{Label|particle}`; the particle takes the form that the name before it asks for. In `<...>`
# a name is mentioned in passing and is no entity.
TEMPLATES = """
{age}세 {sex} 환자로 {Disease|으로} 내원하여 {Drug|을} 투여하였다.
{Disease|이} 의심되어 {Procedure|을} 시행하였다.
{Procedure|에서} {Disease|이} 확인되어 {Drug} {dose}을 처방함.
{Biomarker|이} {value}{up} 상승하여 {Drug|을} 증량하였다.
{Disease}의 과거력이 있으며 현재 {Drug|을} 복용 중이다.
{Disease|과} {Disease|을} 앓고 있어 {Drug|과} {Drug|을} 함께 복용한다.
입원 당시 {Biomarker|은} {value}, {Biomarker|은} {value}로 측정되었다.
{Procedure} 후 {Disease|이} 발생하여 {Drug|을} 정맥 주사하였다.
{Disease|은} 없었으며 {Procedure}에서도 특이 소견은 관찰되지 않았다.
{Disease|으로} 진단받고 {Procedure|을} 받은 뒤 호전되었다.
환자는 {Drug} 투여 {days}일째부터 {Disease|이} 나타났다고 호소하였다.
{Biomarker|을} 추적 관찰하면서 {Drug}의 용량을 {dose}으로 조절하기로 하였다.
{Disease} 환자에게 {Drug|을} 투여할 때에는 {Biomarker|을} 정기적으로 확인하여야 한다.
{Drug|은} {Disease}에 급여로 인정되지 아니함.
{Disease|이} 재발하여 {Procedure|을} 다시 시행하였으나 {Biomarker|은} 정상이었다.
{Drug}에 대한 과민반응이 없는 {Disease} 환자에 한하여 급여를 인정함.
{Biomarker} {value}, {Biomarker} {value} 소견으로 {Disease|을} 의심함.
# Imp: {Disease}, {Disease}
# Plan: {Procedure}, {Drug} {dose} bid
Hx: {Disease} (+), {Disease} (-), {Disease} (-)
{days}일 전 {Procedure|을} 받았고 이후 {Disease} 증상은 없다고 함.
{Disease}에는 {Drug}보다 {Drug|이} 더 효과적이라는 보고가 있다.
{Biomarker} 수치가 {value} 이상인 경우에 {Procedure|을} 고려한다.
응급실에서 {Disease}에 대하여 {Drug} {dose}을 투여하고 {Procedure|을} 의뢰하였다.
{Procedure} 결과 {Disease|은} 배제되었고 {Biomarker}만 경도로 상승하였다.
이 사례는 {Disease}에 시행한 {Procedure}의 요양급여 인정 여부에 대한 것이다.
{Disease}에서 {Disease|으로} 진행하여 {Procedure|이} 필요한 상태이다.
{Drug|을} 중단하자 {Biomarker|이} {value}까지 떨어졌다.
어머니가 {Disease|으로} 사망하였고 형제 중 {Disease} 환자가 있다.
{Disease} 소견은 보이지 않으나 {Biomarker|이} 높아 {Procedure|을} 예약하였다.
{Procedure|과} {Procedure|을} 동시에 시행한 경우 각각 산정할 수 없다.
{Disease}({Disease} 동반) 환자로 {Drug}({dose}) 단독요법을 시작함.
{Drug|으로} 조절되지 않는 {Disease}의 경우 {Drug|을} 추가한다.
{Biomarker} 음성, {Biomarker} 양성으로 확인되어 {Drug} 치료 대상이 된다.
수술 전 {Biomarker|이} {value}로 낮아 {Procedure|을} 먼저 시행하였다.
{Disease|을} 주소로 내원하였으나 {Disease|이나} {Disease|은} 아니었다.
{Procedure}상 {Disease} 의증으로 판독되었다.
{Drug} 복용력은 없고 {Biomarker|은} {value}였다.
{age}세 {sex}, {Disease|으로} {Procedure} 시행 후 {days}일째 퇴원.
{Disease|이} 악화되면 {Drug} 대신 {Drug|을} 쓰는 것이 좋겠습니다.
최근 {days}일간 {Drug|을} 자의로 중단하였고, 그 뒤 {Disease|이} 심해졌습니다.
{Disease} 치료 목적의 {Procedure|은} 연 {days}회까지 인정한다.
환자의 {Biomarker|은} 정상 범위여서 {Disease}의 가능성은 낮다.
{Disease|으로} 인한 {Disease|이} 지속되어 {Procedure|을} 시행하기로 함.
{Biomarker|과} {Biomarker|을} 함께 측정하고 {Disease} 여부를 판단하였다.
{Drug} {dose}, {Drug} {dose} 투여 중이며 {Disease|은} 호전 추세임.
""".strip().splitlines()

WITHOUT_ENTITIES = """
환자는 {days}일 전부터 불편감이 있었다고 하였다.
다음 외래는 {days}주 뒤로 예약하였다.
보호자에게 경과를 설명하고 동의서를 받았다.
특이 사항 없이 퇴원하였다.
제출된 진료기록을 검토한 결과 급여로 인정함.
관련 자료를 {days}일 이내에 다시 제출하시기 바랍니다.
활력징후는 안정적이며 의식은 명료하였다.
{age}세 {sex}, 흡연력 없음.
본인부담률은 {days}0%로 정한다.
산정 횟수는 1일 {days}회를 초과할 수 없다.
""".strip().splitlines()

IN_PASSING = """
<Disease> 교육 책자를 받아 갔다.
<Disease> 환우회에서 보낸 문의에 답변하였다.
<Drug> 제조사의 설명회가 {days}시에 열린다.
<Procedure>실 앞에서 {days}분 동안 대기하였다.
<Biomarker> 측정기의 대여 기간은 {days}일이다.
<Disease> 진료 지침 개정판이 배포되었다.
<Procedure> 예약 창구는 {days}층에 있습니다.
<Drug> 보관 냉장고의 온도를 점검하였다.
{Disease|으로} 입원한 환자가 <Disease> 교육 책자를 요청하였다.
{Drug|을} 받은 뒤 <Procedure>실 앞에서 대기하였다.
""".strip().splitlines()

# A mark after `:` says what a slot takes part in, within its sentence. Slots with the same letter are in the relation
# 치료: the drug is given for the disease. Slots with the same digit are one 처방: drug, amount and route. So the drug
# `{Drug|을:a1}` treats `{Disease:a}` and is prescribed as `{amount:1}`. `{code}` is a route's abbreviation; `{better}`
# and `{worse}` say the outcome (경과).
#
# Sentences are put together freely. So that no reader infers a treatment across them, each sentence with a relation
# names both sides, and other sentences say that a drug has another purpose, or that a disease is not treated with one.
STATED = """
{Disease|으로:a} 진단되어 {Drug|을:a1} {amount:1} {route:1} 투여하였다.
{Disease:a}에 대하여 {Drug:a1} {amount:1}을 처방하고 {days}일 뒤 다시 보기로 함.
{Procedure} 결과 {Disease|이:a} 확인되어 {Drug:a1} {amount:1} {code:1} 시작함.
{Disease:a} 조절을 위해 {Drug|을:a1} {route:1} 처방하였고 증상은 {better}다.
{Drug:a1} {amount:1}을 {route:1} 투여하자 {Disease:a} 증상이 {better}다.
{worse}던 {Disease:a} 증상이 {Drug:a1} {amount:1}을 {route:1} 투여하고 나서 {better}다.
{Disease:a} 증상이 {Drug:a} 사용 중에도 {worse}기에 {Drug|으로:a1} 바꾸어 {amount:1}을 처방하였다.
{Disease:a} 소견이 {worse}기에 {Drug|을:a1} 처방하였다.
{Disease}의 과거력이 있는 환자로, 이번 {Disease:a}에는 {Drug:a1} {amount:1}을 {route:1} 투여하였다.
{Disease|은} 지켜보기로 하고 {Disease:a}에만 {Drug|을:a1} {route:1} 처방하였다.
{Biomarker|이} {value}로 높아 {Disease:a} 약제를 {Drug|으로:a1} 바꾸고 {amount:1} {code:1} 처방함.
{Disease:a}에는 {Drug|을:a1} {route:1}, {Disease:b}에는 {Drug|을:b2} {route:2} 각각 처방하였다.
{Disease|과:a} {Disease:b}에 대하여 각각 {Drug:a1} {amount:1}, {Drug:b2} {amount:2}을 처방함.
{Disease:a} 치료로 {Drug:a1} {amount:1} {code:1}, {Drug:a2} {amount:2} {code:2} 병용함.
입원 전부터 쓰던 {Drug:1} {amount:1}을 {route:1} 이어서 처방하였다.
{Biomarker|이} {value}로 낮아 {Drug|을:1} {amount:1}으로 줄여 처방하였다.
{Procedure} 당일 {Drug:1} {amount:1}, 다음 날 {Drug:2} {amount:2}을 투여함.
{Procedure} 전처치로 {Drug:1} {amount:1}을 {route:1} 투여하였다.
타과 지속 약: {Drug:1} {amount:1} {code:1}, {Drug:2} {amount:2} {code:2}, {Drug:3} {amount:3} {code:3} 처방.
{Drug|은:a} {Disease:a} 치료에 급여로 인정한다.
{Disease:a} 환자에게는 {Drug|을:a} 1차 약제로 권고한다.
{Disease|으로:a} {Drug|을:a} 복용해 왔으며 증상은 {better}다.
{Drug|을:a} 쓰면서 {Disease:a} 증상은 {better}으나 감량한 뒤 다시 {worse}다.
{Disease:a} 치료에 쓴 {Drug:a}의 비용은 1회 {amount}까지 급여 대상이다.
{Disease:a} 때문에 {Drug|을:a} 먹던 중 {Disease|이} 새로 생겨 {Procedure|을} 시행하였다.
{Disease:a}에 쓰던 {Drug|은:a} 부작용인 {Disease} 때문에 끊었다.
""".strip().splitlines()

UNRELATED = """
{Drug} 투여 후 {Disease|이} 발생하였다.
{Drug|을} 맞은 직후 {Disease} 증상이 나타나 점차 {worse}다.
{Drug|이} {Disease|을} 일으킬 수 있음을 설명하였다.
{Disease}에는 {Drug|을} 쓰지 않는다.
{Drug|은} {Disease}에 허가되지 않아 급여로 인정하지 아니한다.
{Disease}의 과거력이 있고, 그와 무관하게 복용하던 {Drug|은} 중단하였다.
{Disease} 병력을 확인하고 {Drug} {amount} 처방은 취소하였다.
{Disease|은} {Procedure|으로} 치료하였고 {Drug|은} 쓰지 않았다.
{Drug} {amount}을 희석하여 피내에 주사한 과민반응 시험은 음성이었다.
{Drug} 포장에는 1회분이 {amount}이라고 적혀 있다.
쓰고 남은 {Drug} {amount}은 약국에 반납하였다.
{Drug|과} {Drug}의 상호작용에 대하여 약사가 설명하였다.
가족 중 {Disease} 환자가 있으며 본인의 {Drug} 복용력은 없다.
{Disease|이} 의심되어 {Procedure|을} 의뢰하였다.
{Procedure|을} 받은 뒤 {Disease} 증상은 {better}다.
{Procedure}상 {Disease} 소견이 지난번보다 {worse}음을 확인하였다.
{Disease} 증상이 악화되면 바로 내원하도록 안내하였다.
호전 여부는 {Procedure} 후에 판단하기로 하였다.
정맥로를 확보하고 {Biomarker|을} 다시 측정하였다.
{Biomarker} {value}로 확인, {Procedure} 결과는 기다리는 중.
{Biomarker|은} {value}, {Biomarker|은} {value}로 측정되었다.
""".strip().splitlines()

NOTHING = [
    *WITHOUT_ENTITIES,
    *(template for template in IN_PASSING if template.startswith("<")),
    "환자가 느끼는 통증은 {better}다.",
    "밤사이 불편감이 {worse}다.",
]

VALUES = ["7.2%", "8.9%", "142 mg/dL", "3.1 mg/dL", "12.5", "0.8", "56 U/L", "230 U/L", "4.6 mmol/L", "9.8 g/dL", "88%"]
DOSES = ["5mg", "10mg", "20 mg", "500mg", "1g", "40 mg/일", "10 U", "0.5mg/kg", "75mg"]
ROUTES = {
    "경구로": "경구", "경구제로": "경구", "정맥으로": "정맥", "정맥 주사로": "정맥", "피하 주사로": "피하", "피하주사로": "피하",
    "PO": "경구", "p.o.": "경구", "IV": "정맥", "i.v.": "정맥", "SC": "피하", "s.c.": "피하",
}  # fmt: skip
# What fills other slots of the documents. The outcomes are stems of the past tense, which take any ending.
WORDS = {
    "amount": ["2.5mg", "5 mg", "12.5mg", "15mg", "30 mg", "60mg", "100 mg", "250 mg", "1.5g", "2 g", "50mcg", "6 U"],
    "route": [form for form in ROUTES if form.endswith("로")],
    "code": [form for form in ROUTES if not form.endswith("로")],
    "better": ["호전되었", "좋아졌", "나아졌", "가라앉았", "줄었", "감소하였", "완화되었", "한결 덜해졌"],
    "worse": ["악화되었", "심해졌", "나빠졌", "더 나빠졌", "늘었", "증가하였", "뚜렷해졌", "한층 더해졌"],
}  # fmt: skip
# Whether the Korean reading of a final letter or digit ends in a consonant, and whether in ㄹ.
CLOSED_ENDINGS, L_ENDINGS = set("013678LMNRlmnr"), set("178LRlr")
PARTICLES = {
    "을": ("을", "를"), "은": ("은", "는"), "이": ("이", "가"), "과": ("과", "와"),
    "으로": ("으로", "로"), "이나": ("이나", "나"), "에서": ("에서", "에서"),
}  # fmt: skip
SLOT = re.compile(r"\{(\w+)(?:\|(\w+))?(?::(\w+))?\}|<(\w+)>")
LABELS = tuple(DESCRIPTIONS)


def with_particle(name: str, particle: str) -> str:
    """``name`` followed by the form of ``particle`` that its last sound asks for."""
    last = name[-1]
    if "가" <= last <= "힣":
        coda = (ord(last) - ord("가")) % 28
        closed, ends_in_l = coda != 0, coda == 8
    else:
        closed, ends_in_l = last in CLOSED_ENDINGS, last in L_ENDINGS
    after_consonant, after_vowel = PARTICLES[particle]
    return name + (after_vowel if not closed or (particle == "으로" and ends_in_l) else after_consonant)


class Slot(NamedTuple):
    """A filled slot of a template that is no mention in passing; ``marks`` are unique over the sentences of a text."""

    kind: str
    marks: list[str]
    text: str
    start: int
    end: int

    @property
    def mention(self) -> dict[str, str | int]:
        return {"text": self.text, "start": self.start, "end": self.end}


def fill(templates: list[str], names: dict[str, list[str]], draw: random.Random) -> tuple[str, list[Slot]]:
    """A text, one sentence for each template, and its slots in reading order; no name is used twice."""
    text, slots, used = "", [], set()
    for sentence, template in enumerate(templates):
        text, position = text + " " * (sentence > 0), 0
        for slot in SLOT.finditer(template):
            text += template[position : slot.start()]
            position = slot.end()
            kind, particle, marks, passing = slot.groups()
            label = passing or kind
            if label in LABELS:
                word = draw.choice([name for name in names[label] if name not in used])
                used.add(word)
            elif label in WORDS:
                word = draw.choice(WORDS[label])
            else:
                word = {
                    "age": str(draw.randint(19, 88)), "sex": draw.choice(["남자", "여자", "남성", "여성"]),
                    "days": str(draw.randint(2, 9)), "value": draw.choice(VALUES), "dose": draw.choice(DOSES),
                    "up": draw.choice(["로", "까지", " 수준으로"]),
                }[label]  # fmt: skip
            if not passing:
                unique = [f"{sentence}{mark}" for mark in marks or ""]
                slots.append(Slot(kind, unique, word, len(text), len(text) + len(word)))
            text += with_particle(word, particle) if particle else word
        text += template[position:]
    return text, slots


def task_fields(slots: list[Slot]) -> dict:
    """The classifications, relations and structures of a document."""
    groups: dict[str, dict[str, list[Slot]]] = {}
    for slot in slots:
        for mark in slot.marks:
            groups.setdefault(mark, {}).setdefault(slot.kind, []).append(slot)
    relations, prescriptions = [], []
    for mark, group in groups.items():
        if mark[-1].isalpha():
            for drug, disease in product(group["Drug"], group["Disease"]):
                relations.append({"치료": {"head": drug.mention, "tail": disease.mention}})
            continue
        prescription = {"약물": group["Drug"][0].mention}
        if "amount" in group:
            prescription["용량"] = group["amount"][0].mention
        for slot in group.get("route", []) + group.get("code", []):
            prescription["경로"] = {"value": ROUTES[slot.text], "choices": ["경구", "정맥", "피하"]}
        prescriptions.append({"처방": prescription})

    kinds = {slot.kind for slot in slots}
    contents = dict(zip(LABELS, ["진단", "투약", "시술", "검사 수치"], strict=True))
    outcomes = [{"better": "호전", "worse": "악화"}[slot.kind] for slot in slots if slot.kind in ("better", "worse")]
    return {
        "classifications": [
            {"task": "경과", "labels": ["호전", "악화", "언급 없음"], "true_label": (outcomes or ["언급 없음"])[-1:]},
            {
                "task": "내용",
                "labels": list(contents.values()),
                "true_label": [content for label, content in contents.items() if label in kinds],
                "multi_label": True,
            },
        ],
        "relations": relations,
        "json_structures": prescriptions,
        "relation_descriptions": {"치료": "약물로 질병을 치료함"},
        "json_descriptions": {"처방": {"약물": "처방된 약물", "용량": "한 번에 쓰는 양", "경로": "투여 경로"}},
    }


def document_pools(number: int, draw: random.Random) -> list[list[str]]:
    """The templates from which each sentence of a document is chosen."""
    # Even steps, not draws: small splits get the shares of large ones.
    kind, others = number * 0.618 % 1, draw.randint(0, 2)
    if kind < 0.12:
        return [NOTHING] * (1 + others)
    first, weights = (UNRELATED, (0, 3, 2)) if kind < 0.34 else (STATED, (1, 4, 3))
    pools = [first, *draw.choices([STATED, UNRELATED, NOTHING], weights, k=others)]
    draw.shuffle(pools)
    return pools


def make_rows(
    name: str, count: int, own_share: float, lexicon: dict[str, dict[str, list[str]]], seed: int, others: set[str]
) -> Iterator[dict]:
    """``count`` rows of a split, ``test``, or of its documents, ``tasks-test``.

    A text draws from the names of the split alone with probability ``own_share``. ``others`` are the texts of the other
    splits, none of which occurs again.
    """
    draw = random.Random(f"{seed}-{name}")
    split, with_tasks = name.removeprefix("tasks-"), name.startswith("tasks-")
    number = 0
    while number < count:
        if with_tasks:
            pools = document_pools(number, draw)
        else:
            kind = draw.random()
            pools = [WITHOUT_ENTITIES if kind < 0.08 else IN_PASSING if kind < 0.18 else TEMPLATES]
        own = draw.random() < own_share
        names = {label: lexicon[split][label] if own else lexicon["train"][label] for label in LABELS}
        templates: list[str] = []
        for pool in pools:
            templates.append(draw.choice([template for template in pool if template not in templates]))
        text, slots = fill(templates, names, draw)
        if text in others:
            continue
        mentions: dict[str, list] = {}
        for slot in slots:
            if slot.kind in LABELS:
                mentions.setdefault(slot.kind, []).append(slot.mention)
        row = {"id": f"{name}-{number}", "text": text, "entities": mentions, "entity_descriptions": DESCRIPTIONS}
        yield row | task_fields(slots) if with_tasks else row
        number += 1


def split_names(seed: int) -> dict[str, dict[str, list[str]]]:
    """The names of each split: two thirds of a label's for training, the rest for validation or test alone."""
    lexicon: dict[str, dict[str, list[str]]] = {"train": {}, "validation": {}, "test": {}}
    for label, text in NAMES.items():
        names = list(dict.fromkeys([*(name.replace("_", " ") for name in text.split()), *COMPOSED.get(label, ())]))
        random.Random(f"{seed}-{label}").shuffle(names)
        first, second = round(len(names) * 0.66), round(len(names) * 0.78)
        parts = names[:first], names[first:second], names[second:]
        for split, part in zip(lexicon, parts, strict=True):
            lexicon[split][label] = part
    return lexicon


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, help="training rows of each corpus (default: 600)")
    parser.add_argument("--validation", type=int, help="validation rows of each corpus (default: 100)")
    parser.add_argument("--test", type=int, help="test rows of each corpus (default: 100 sentences, 150 documents)")
    parser.add_argument("--seed", type=int, default=42, help="seed of names and sentences (default: 42)")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent, help="where the files go")
    options = parser.parse_args()

    lexicon = split_names(options.seed)
    for directory, prefix, test in (".", "", 100), ("tasks", "tasks-", 150):
        (options.output_dir / directory).mkdir(parents=True, exist_ok=True)
        written: set[str] = set()
        # The small splits first: their texts are what has to be kept in mind.
        for split, default, own_share in ("test", test, 0.42), ("validation", 100, 0.42), ("train", 600, 0.0):
            path = options.output_dir / directory / f"{split}.jsonl"
            size = getattr(options, split)
            size = default if size is None else size
            texts = set()
            with path.open("w", encoding="utf-8") as file:
                for row in make_rows(prefix + split, size, own_share, lexicon, options.seed, written):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    texts.add(row["text"])
            if split != "train":
                written |= texts
            print(f"{path}: {size} rows")


if __name__ == "__main__":
    main()
