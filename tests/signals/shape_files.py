"""Files of shapes that several tests write."""

import zipfile

import trimesh


def cube(size=1.0):
    """A closed cube of 12 faces."""
    return trimesh.creation.box((size, size, size))


def write_catalogue(path, models, properties=""):
    """A catalogue of furniture with models by name: (category, OBJ text)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, (category, text)) in enumerate(models.items(), start=1):
            properties += f"id#{number}=Own#{name}\ncategory#{number}={category}\nmodel#{number}=/own/{name}.obj\n"
            archive.writestr(f"own/{name}.obj", text)
        archive.writestr("PluginFurnitureCatalog.properties", properties.encode("latin-1"))
