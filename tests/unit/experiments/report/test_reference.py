"""Trainings that others measured, read from a CSV that the user brings."""

from __future__ import annotations

import pytest

from experiments.report.__main__ import main
from experiments.report.inputs.reference import read_reference
from tests.unit.experiments.report.made import REFERENCE


def read(tmp_path, content):
    file = tmp_path / "reference.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_reference(file)


def test_trainings_arrive_with_family_year_and_device(tmp_path):
    trainings, broken = read(tmp_path, REFERENCE)
    assert not broken
    first = trainings[0]
    assert (first.name, first.family, first.year) == ("ResNet50 (PyTorch)", "ResNet", 2015)
    assert (first.device, first.joules, first.accuracy, first.epochs) == ("8 x NVIDIA A100-SXM4-40GB", 18e6, 0.51, 10)


@pytest.mark.parametrize("energy", ["", "nan", "inf", "-1", "0", "1e400", "<script>", "1" * 400])
def test_a_row_without_a_possible_energy_is_listed(tmp_path, energy):
    trainings, broken = read(tmp_path, f"model,kwh,val_acc\na,{energy},0.5\nb,1,0.5\n")
    assert [training.name for training in trainings] == ["b"]
    assert broken[0].path == "reference.csv, line 2"


@pytest.mark.parametrize("accuracy", ["nan", "-0.1", "51", "="])
def test_a_row_without_a_possible_accuracy_is_listed(tmp_path, accuracy):
    trainings, broken = read(tmp_path, f"model,kwh,val_acc\na,1,{accuracy}\n")
    assert (len(trainings), len(broken)) == (0, 1)


def test_short_rows_binary_rubbish_and_long_fields_do_no_harm(tmp_path):
    trainings, broken = read(tmp_path, b"model,kwh,val_acc\na\n\xff\xfe\x00,1,0.5\n" + b"x" * 200_000 + b",1,0.5\n")
    assert len(broken) >= 1
    assert all(training.name.isprintable() for training in trainings)


@pytest.mark.parametrize(("content", "missing"), [("", "model"), ("kwh,val_acc\n", "model"), ("model,val_acc\n", "kwh")])
def test_another_file_is_refused_with_what_it_lacks(tmp_path, content, missing):
    with pytest.raises(ValueError, match=missing):
        read(tmp_path, content)


def test_no_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_reference(tmp_path / "nowhere.csv")


def test_a_training_without_accuracy_is_kept_and_energies_tell_how_they_were_found(tmp_path):
    columns = "model,energy_j,uncertainty_kwh,accuracy,provenance,family,device,count"
    trainings, broken = read(tmp_path, f"{columns}\na,3.6e6,0.1,,estimated,net,X,2\nb,1,,0.5,,,,\nc,1,,0.5,guessed,,,\n")
    first, second = trainings
    assert (first.joules, first.uncertainty_j, first.accuracy, first.provenance) == (3.6e6, 3.6e5, None, "estimated")
    assert (first.family, first.device, second.provenance) == ("net", "2 x X", "mixed")
    assert "guessed: not one of measured, mixed, estimated" in broken[0].why


CODECARBON = """timestamp,project_name,run_id,experiment_id,duration,emissions,emissions_rate,cpu_power,gpu_power,ram_power,\
cpu_energy,gpu_energy,ram_energy,energy_consumed,water_consumed,country_name,country_iso_code,region,cloud_provider,\
cloud_region,os,python_version,codecarbon_version,cpu_count,cpu_model,gpu_count,gpu_model,longitude,latitude,\
ram_total_size,tracking_mode,cpu_utilization_percent,on_cloud,pue,wue
2026-01-01T00:00:00,vit,0123456789ab,e,60,0.1,0,42.5,300,10,0.1,0.7,0.1,0.9,0,X,XXX,x,,,Linux,3.11,3.3.2,8,A CPU,\
2,2 x NVIDIA A100,0,0,64,machine,5,N,1.5
2026-01-01T00:00:00,vit,fedcba987654,e,60,0.1,0,42.5,0,10,0.1,0,0.1,0.2,0,X,XXX,x,,,Linux,3.11,3.3.2,8,A CPU,\
,,0,0,64,machine,5,N,1
"""  # the columns of version 3.3.2


def test_codecarbons_file_is_read_as_it_is(tmp_path):
    trainings, broken = read(tmp_path, CODECARBON)
    assert not broken
    with_gpu, without = trainings
    # The devices' energy: CodeCarbon has multiplied by the data centre's overhead.
    assert (with_gpu.joules, without.joules) == (pytest.approx(0.6 * 3.6e6), pytest.approx(0.2 * 3.6e6))
    assert (with_gpu.name, with_gpu.family, with_gpu.device) == ("vit 01234567", "vit", "2 x NVIDIA A100")
    assert (with_gpu.provenance, without.provenance, without.device) == ("mixed", "estimated", "A CPU")


def test_codecarbons_oldest_file_is_read_too(tmp_path):
    columns = "timestamp,experiment_id,project_name,duration,emissions,energy_consumed,country_name,on_cloud"
    (training,), broken = read(tmp_path, f"{columns}\n2021,0c8ca9ea-a74a,codecarbon,857.0,0.05,0.088,USA,Y\n")
    assert (training.name, training.joules, broken) == ("codecarbon 0c8ca9ea", pytest.approx(0.088 * 3.6e6), [])


@pytest.mark.parametrize("project", ["resnet", "resnet50", "vit", "ResNet50"])
def test_a_projects_name_tells_no_year(tmp_path, project):
    """It had: a project called "resnet" was the paper of 2015."""
    trainings, _ = read(tmp_path, CODECARBON.replace(",vit,", f",{project},"))
    assert {(one.family, one.year) for one in trainings} == {(project, None)}


@pytest.mark.parametrize(
    ("model", "family", "year"),
    [
        ("ResNet101", "ResNet", 2015),
        ("EfficientNetB4", "EfficientNet", 2019),
        ("mobilenet_v3_large", "MobileNetV3", 2019),  # torchvision's way of writing it
        ("resnet50.tv_in1k", "resnet50.tv_in1k", 2015),  # timm's
        ("resnet", "resnet", None),
        ("ResNet-like net of ours", "ResNet-like net of ours", None),
        ("vitamin", "vitamin", None),
    ],
)
def test_a_year_is_that_of_a_whole_name(tmp_path, model, family, year):
    (training,), _ = read(tmp_path, f"model,kwh\n{model},1\n")
    assert (training.family, training.year) == (family, year)


def test_a_year_that_the_file_gives_is_taken(tmp_path):
    (training,), _ = read(tmp_path, "model,kwh,year,family\nresnet,1,2019,ours\n")
    assert (training.family, training.year) == ("ours", 2019)


def test_a_log_of_zeus_is_added_up_by_window(tmp_path):
    log = "start_time,window_name,elapsed_time,gpu0_energy,gpu3_energy\n"
    log += "1.0,epoch,10.0,100.0,50.0\n2.0,step,1.0,10.0,5.0\n3.0,epoch,10.0,200.0,50.0\n"
    trainings, broken = read(tmp_path, log)
    assert not broken
    assert {one.name: (one.joules, one.device, one.provenance) for one in trainings} == {
        "epoch (2 windows)": (pytest.approx(400.0), "2 x GPU, not named", "measured"),
        "step": (pytest.approx(15.0), "2 x GPU, not named", "measured"),
    }


@pytest.mark.parametrize(
    "export",
    [
        "run_id,experiment_id,status,artifact_uri,start_time,end_time,metrics.watt/energy_kwh,metrics.watt/accuracy,"
        "params.epochs,tags.mlflow.runName\na1,1,FINISHED,x,0,1,0.5,0.9,3,vit\na2,1,FAILED,x,0,1,0.1,,3,swin\n",
        '"Start Time","Duration","Run ID","Name","Source Type","Source Name","User","Status","epochs","watt/energy_kwh",'
        '"watt/accuracy"\n"0","1","a1","vit","LOCAL","x","me","FINISHED","3","0.5","0.9"\n'
        '"0","1","a2","swin","LOCAL","x","me","FAILED","3","0.1",""\n',
    ],
    ids=["command", "page"],
)
def test_mlflows_exports_are_read_as_they_are(tmp_path, export):
    (vit, swin), broken = read(tmp_path, export)
    assert not broken
    assert (vit.name, vit.joules, vit.accuracy, vit.epochs, vit.status) == ("vit", 0.5 * 3.6e6, 0.9, 3, "completed")
    assert (swin.accuracy, swin.status, swin.provenance) == (None, "failed", "mixed")


def test_mlflows_own_export_is_read(tmp_path, monkeypatch):
    """Written by MLflow itself."""
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow-skinny: pip install mlflow-skinny")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    try:
        with mlflow.start_run(run_name="vit"):
            mlflow.log_metrics({"watt/energy_kwh": 0.5, "watt/accuracy": 0.9})
        content = mlflow.search_runs(search_all_experiments=True).to_csv(index=False)
    finally:
        mlflow.set_tracking_uri(None)
    (training,), _ = read(tmp_path, content)
    assert (training.name, training.joules, training.accuracy) == ("vit", 0.5 * 3.6e6, 0.9)


def test_several_references_are_all_read(tmp_path, capsys):
    """Of two, the first was dropped without a word."""
    files = []
    for name, content in (("a", "model,kwh\none,1\ntwo,2\n"), ("b", CODECARBON)):
        files.append(tmp_path / f"{name}.csv")
        files[-1].write_text(content)
    assert main([str(tmp_path), *(word for file in files for word in ("--reference", str(file)))]) == 0
    table = (tmp_path / "report/tables/table1_models.csv").read_text()
    assert all(name in table for name in ("one", "two", "vit 01234567", "vit fedcba98"))
